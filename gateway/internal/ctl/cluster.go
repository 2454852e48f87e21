package ctl

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// suspect is the suspicion from which a gateway skips a node.
const suspect = 8

// ask gets one page of the cluster into m. Where scripts are to read it, it is printed as it came, and done is true.
func (s *session) ask(ctx context.Context, path string, m proto.Message) (done bool, err error) {
	body, err := s.fetch(ctx, s.client, call{method: http.MethodGet, path: path}, m)
	if err == nil && s.json {
		return true, s.printRawJSON(body)
	}
	return false, err
}

// fetch sends one request that is no write, gets the answer into m, and returns it as it came.
func (s *session) fetch(ctx context.Context, client *client, q call, m proto.Message) ([]byte, error) {
	a, err := client.do(ctx, q)
	if err != nil {
		return nil, failed(err, "")
	}
	if a.status != http.StatusOK {
		return nil, refused(a, "")
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(a.body, m); err != nil {
		return nil, &failure{code: ExitError, status: a.status, title: "the answer cannot be read", detail: excerpt(a), hint: hintNotAGateway}
	}
	return a.body, nil
}

type statusCommand struct{ watchFlags }

// Help is shown by --help.
func (statusCommand) Help() string {
	return liveText + "\n\n" + examples("dotringctl status", "dotringctl status --watch", "dotringctl status -o json | jq .warnings",
		"DOTRING_GATEWAY=http://127.0.0.1:8081 dotringctl status")
}

// Run shows the cluster in short.
func (c statusCommand) Run(ctx context.Context, s *session) error {
	return s.show(ctx, c.watchFlags, "status", func(ctx context.Context, wait time.Duration, _ bool) (view, error) {
		var st clusterv1.GetStatusResponse
		body, err := s.fetch(ctx, s.client, call{method: http.MethodGet, path: "/v1/cluster/status", wait: wait}, &st)
		return view{body, statusText(s.out, &st)}, err
	})
}

func statusText(p palette, st *clusterv1.GetStatusResponse) string {
	word, look := health(st)
	rows := table{{styled("state", heading), styled(word, look)}}
	add := func(name string, c cell) { rows = append(rows, []cell{styled(name, heading), c}) }
	cluster := st.Cluster
	if cluster == "" {
		cluster = "none known yet"
	}
	add("cluster", text(cluster))
	layout := text(layoutName(st.Settled))
	if st.Changing {
		layout = styled(layoutName(st.Settled)+", changing to "+layoutName(st.Newest), doubtful)
	}
	add("layout", layout)
	members := cell{text: fmt.Sprintf("%d of %d alive", st.Alive, st.Members), style: good}
	if st.Alive < st.Members || st.Members == 0 {
		members.style = look
	}
	add("members", members)
	replicas := cell{text: fmt.Sprintf("%d of each key", st.Replicas)}
	if st.Replicas < st.ReplicasConfigured {
		replicas = cell{text: fmt.Sprintf("%s, %d are wanted", replicas.text, st.ReplicasConfigured), style: doubtful}
	}
	add("replicas", replicas)
	add("quorums", text(fmt.Sprintf("r=%d w=%d, w at least %d", st.ReadQuorum, st.WriteQuorum, st.MinWriteQuorum)))
	add("promise", text(st.Promise))
	add("gateway", text(strings.TrimSpace(st.Gateway+" "+st.Version)))
	for i, w := range st.Warnings {
		name := ""
		if i == 0 {
			name = "warnings"
		}
		add(name, styled(w, doubtful))
	}
	return rows.render(p, "")
}

// health sums a status up.
func health(st *clusterv1.GetStatusResponse) (string, style) {
	switch {
	case st.Cluster == "" || st.Members == 0:
		return "no cluster", bad
	case st.Alive < max(st.ReadQuorum, st.WriteQuorum):
		return "down: fewer nodes are alive than a quorum needs", bad
	case st.Alive < st.Members:
		return fmt.Sprintf("degraded: %s away", plural(st.Members-st.Alive, "node")), doubtful
	case st.Changing:
		return "changing layout", doubtful
	case st.Replicas < st.ReplicasConfigured:
		return "too few nodes", doubtful
	case len(st.Warnings) > 0:
		return "up, with warnings", doubtful
	default:
		return "healthy", good
	}
}

func layoutName(l *clusterv1.LayoutRef) string {
	if l == nil || l.Epoch == 0 {
		return "none"
	}
	return fmt.Sprintf("%d-%s", l.Epoch, escapeText(short(l.Hash)))
}

type nodesCommand struct{}

// Help is shown by --help.
func (nodesCommand) Help() string {
	return `STATUS is what gossip says, LINK whether the gateway that answers has a stream to the node, PHI how much that ` +
		`gateway suspects it: from 8 on, requests skip it. SHARE is the part of all keys that the node holds a replica of, ` +
		`HINTS how many writes it keeps for other nodes until those are back, EPOCHS the layouts that it has acknowledged and synced.

` + examples("dotringctl nodes", "dotringctl nodes -o json | jq '.nodes[] | select(.status != \"alive\")'")
}

// Run lists the nodes.
func (nodesCommand) Run(ctx context.Context, s *session) error {
	var list clusterv1.ListNodesResponse
	if done, err := s.ask(ctx, "/v1/cluster/nodes", &list); done || err != nil {
		return err
	}
	return s.print(nodesText(s.out, list.Nodes))
}

func nodesText(p palette, nodes []*clusterv1.Node) string {
	if len(nodes) == 0 {
		return "No nodes are known.\n"
	}
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b *clusterv1.Node) int { return compareNames(a.Name, b.Name) })
	rows := table{headings("NAME", "STATUS", "LINK", "ZONE", "WEIGHT", "SHARE", "KEYS", "DISK", "HINTS", "PHI", "EPOCHS", "GRPC", "STARTED")}
	for _, i := range []int{4, 5, 6, 7, 8, 9} {
		rows[0][i].right = true
	}
	var faults strings.Builder
	for _, n := range nodes {
		link := styled("yes", good)
		if !n.Connected {
			link = styled("no", bad)
		}
		keys, disk, hints := number("%d", n.Keys), number("%s", byteSize(n.DiskBytes)), number("%d", n.Hints)
		if n.Error != "" {
			keys.text, disk.text, hints.text = "?", "?", "?"
			fmt.Fprintf(&faults, "%s could not be asked: %s\n", escapeText(n.Name), p.paint(bad, escapeText(n.Error)))
		}
		rows = append(rows, []cell{text(n.Name), styled(n.Status, nodeStyle(n.Status)), link, text(n.Zone),
			number("%.4g", n.Weight), number("%.1f%%", 100*n.Share), keys, disk, hints, phiCell(n.Phi),
			text(fmt.Sprintf("%d/%d", n.AckedEpoch, n.SyncedEpoch)), text(n.GrpcAddr), text(clock(n.Started))})
	}
	if faults.Len() > 0 {
		return rows.render(p, "") + "\n" + faults.String()
	}
	return rows.render(p, "")
}

// compareNames orders names so that node9 comes before node10.
func compareNames(a, b string) int {
	const digits = "0123456789"
	return cmp.Or(strings.Compare(strings.TrimRight(a, digits), strings.TrimRight(b, digits)),
		cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func nodeStyle(status string) style {
	switch status {
	case "alive":
		return good
	case "failed":
		return bad
	default:
		return doubtful
	}
}

func phiCell(phi float64) cell {
	c := number("%.1f", phi)
	switch {
	case phi >= suspect || math.IsNaN(phi):
		c.style = bad
	case phi >= suspect/2:
		c.style = doubtful
	}
	return c
}

// clock returns a time for people, in UTC; "-" for none.
func clock(t *timestamppb.Timestamp) string {
	if t == nil || !t.IsValid() {
		return "-"
	}
	return t.AsTime().Format(time.DateOnly + " " + time.TimeOnly + "Z")
}
