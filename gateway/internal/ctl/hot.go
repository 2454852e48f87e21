package ctl

import (
	"context"
	"fmt"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// hot is the share of all requests from which a key is painted as one that needs a look.
const hot = 0.1

type hotCommand struct{}

// Help is shown by --help.
func (hotCommand) Help() string {
	return `Each gateway counts what goes through itself, refused requests included: ask each by --gateway. Rates are of the last ` +
		`seconds, since what is three seconds old counts half, and are at most too low.

` + examples("dotringctl hot", "dotringctl --gateway 127.0.0.1:8081 hot", "dotringctl hot -o json | jq '.keys[] | select(.share > 0.1)'")
}

// Run lists the keys that take the most requests.
func (hotCommand) Run(ctx context.Context, s *session) error {
	var list clusterv1.ListHotKeysResponse
	if done, err := s.ask(ctx, "/v1/cluster/hotKeys", &list); done || err != nil {
		return err
	}
	return s.print(hotText(s.out, &list))
}

func hotText(p palette, list *clusterv1.ListHotKeysResponse) string {
	all := fmt.Sprintf("%s takes %.4g requests a second.\n", escapeText(list.GetGateway()), list.GetRequestsPerSecond())
	if len(list.GetKeys()) == 0 {
		return all + "No key stands out.\n"
	}
	rows := table{headings("KEY", "SHARE", "READS/S", "WRITES/S")}
	for i := 1; i < len(rows[0]); i++ {
		rows[0][i].right = true
	}
	for _, k := range list.GetKeys() {
		key := []byte(k.GetKey())
		if len(k.GetKeyBase64()) > 0 {
			key = k.GetKeyBase64()
		}
		share := number("%.1f%%", 100*k.GetShare())
		if k.GetShare() >= hot {
			share.style = doubtful
		}
		rows = append(rows, []cell{{text: quote(key)}, share, number("%.1f", k.GetReadsPerSecond()), number("%.1f", k.GetWritesPerSecond())})
	}
	return all + rows.render(p, "")
}
