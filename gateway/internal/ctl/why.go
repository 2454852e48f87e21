package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

type whyCommand struct{ keyArgument }

// Help is shown by --help.
func (whyCommand) Help() string {
	return `A deletion leaves a tombstone, which is removed once it is proven that no older record of the key is left anywhere. ` +
		`This says what comes next, how long that still takes, and who is in its way. With -o json it answers with the same as ` +
		`the command key. The exit code is 0 whatever the answer is.

` + examples("dotringctl why colour")
}

// Run asks the owner that collects the key.
func (k *whyCommand) Run(ctx context.Context, s *session) error {
	key, err := k.bytes()
	if err != nil {
		return err
	}
	var in clusterv1.InspectKeyResponse
	if done, err := s.ask(ctx, keyPath("/v1/cluster/keys/", key), &in); done || err != nil {
		return err
	}
	return s.print(whyText(key, in.Replicas))
}

func whyText(key []byte, replicas []*clusterv1.Replica) string {
	var marked []string
	held, asked, live := 0, 0, false
	for _, r := range replicas {
		if answered(r) {
			asked++
		}
		if r.State == "record" {
			held++
			live = live || slices.ContainsFunc(r.Siblings, func(s *clusterv1.ReplicaSibling) bool { return !s.Tombstone })
		}
		if r.Marked {
			marked = append(marked, replicaName(r))
		}
	}
	switch {
	case asked == 0:
		return fmt.Sprintf("%s: no replica answers\n", quote(key))
	case held == 0:
		return fmt.Sprintf("%s: no replica that answers holds anything of it\n", quote(key))
	case live:
		text := fmt.Sprintf("%s: is not deleted\n", quote(key))
		for _, r := range replicas {
			if strings.HasPrefix(r.Why, "entries of its clock") {
				text += fmt.Sprintf("%s: %s\n", replicaName(r), escapeText(r.Why))
			}
		}
		return text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: a tombstone on %d nodes\n", quote(key), held)
	if len(marked) > 0 {
		fmt.Fprintf(&b, "about to be removed on %s\n", strings.Join(marked, ", "))
	}
	told := false
	for _, r := range replicas {
		if r.Why != "" {
			fmt.Fprintf(&b, "%s, which collects it: %s\n", replicaName(r), escapeText(r.Why))
			told = true
		}
	}
	if !told {
		b.WriteString("the owner that collects it does not answer\n")
	}
	return b.String()
}
