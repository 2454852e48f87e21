package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

type tasksCommand struct{ watchFlags }

// Help is shown by --help.
func (tasksCommand) Help() string {
	return `KIND is hints (writes kept for PEER until it has them), compare (what NODE and PEER both own is compared, again and ` +
		`again), refill (NODE fetches what its disk lost), layout (a change of who owns what) or unknown (NODE does not answer). ` +
		`AGE is the time since the last whole comparison began, or since hints have been kept. ` + liveText + `

` + examples("dotringctl tasks", "dotringctl tasks --watch --interval 5s", "dotringctl tasks -o json | jq '.tasks[] | select(.kind == \"hints\")'")
}

// Run lists what runs besides requests.
func (c tasksCommand) Run(ctx context.Context, s *session) error {
	return s.show(ctx, c.watchFlags, "tasks", func(ctx context.Context, wait time.Duration, live bool) (view, error) {
		var list clusterv1.ListTasksResponse
		body, err := s.fetch(ctx, s.client, call{method: http.MethodGet, path: "/v1/cluster/tasks", wait: wait}, &list)
		return view{body, tasksTable(s.out, list.Tasks, live)}, err
	})
}

func tasksText(p palette, tasks []*clusterv1.Task) string { return tasksTable(p, tasks, false) }

// tasksTable lists tasks, with bars for those whose end is known.
func tasksTable(p palette, tasks []*clusterv1.Task, bars bool) string {
	if len(tasks) == 0 {
		return "Nothing runs besides requests.\n"
	}
	rows := table{headings("NODE", "KIND", "PEER", "STATE", "PROGRESS", "AGE", "DETAIL")}
	for _, i := range []int{4, 5} {
		rows[0][i].right = true
	}
	for _, t := range tasks {
		look := text(t.Kind)
		if t.Kind == "unknown" {
			look.style = bad
		}
		row := []cell{text(t.Node), look, text(t.Peer), text(t.State), number("%s", progressText(t)), number("%s", ageText(t)), text(t.Detail)}
		if bars {
			row = slices.Insert(row, barColumn, styled(taskBar(t), good))
		}
		rows = append(rows, row)
	}
	if bars {
		rows[0] = slices.Insert(rows[0], barColumn, cell{})
	}
	return rows.render(p, "")
}

// barColumn is where bars stand: before the progress.
const barColumn = 4

func taskBar(t *clusterv1.Task) string {
	switch {
	case t.Kind == "compare" && t.State == "running", t.Kind == "transfer", t.Kind == "leftovers":
		return bar(t.Done, t.Total)
	}
	return ""
}

func progressText(t *clusterv1.Task) string {
	switch {
	case t.Kind == "hints":
		return fmt.Sprintf("%d left", t.Total)
	case t.Kind == "compare" && t.State == "running":
		return fmt.Sprintf("%d/%d", t.Done, t.Total)
	case t.Kind == "transfer" || t.Kind == "leftovers":
		return shareText(t)
	}
	return "-"
}

// shareText says how much of a transfer is done, of how many bytes, and how long the rest may take.
func shareText(t *clusterv1.Task) string {
	if t.Total == 0 {
		return "-"
	}
	text := fmt.Sprintf("%.0f %%", 100*float64(t.Done)/float64(t.Total))
	if t.BytesTotal > 0 {
		text += " of " + byteSize(t.BytesTotal)
	}
	if left := time.Duration(t.SecondsLeft * float64(time.Second)); left > 0 {
		text += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	return text
}

func ageText(t *clusterv1.Task) string {
	if t.AgeSeconds == 0 {
		return "-"
	}
	return (time.Duration(t.AgeSeconds*10) * time.Second / 10).String()
}

// repairTurn is how long one request waits, so that what is missing can be shown again and again.
const repairTurn = 5 * time.Second

type repairCommand struct {
	Wait      bool          `help:"Answer when all hints and differences known at the start are gone."`
	Within    time.Duration `help:"With --wait, fail after this time. Default: 10m." default:"10m" placeholder:"DURATION"`
	Node      string        `help:"Only what this node keeps, lacks or is to get." placeholder:"NAME" complete:"node"`
	KeyPrefix string        `help:"Wait only for hints of keys that begin so." placeholder:"PREFIX"`
}

// Help is shown by --help.
func (repairCommand) Help() string {
	return `First every hint that is kept now is delivered, then every owner compares with every other one and fetches what it ` +
		`lacks. Without --wait it begins, and shows what is still to be done. A node that is away is waited for.

` + examples("dotringctl repair --wait", "dotringctl repair --wait --node node3 --within 1m", "dotringctl repair")
}

// Run begins, and waits where asked to.
func (c *repairCommand) Run(ctx context.Context, s *session) error {
	began := time.Now()
	req := &clusterv1.RepairRequest{Node: c.Node, KeyPrefix: c.KeyPrefix}
	for {
		if left := c.Within - time.Since(began); c.Wait {
			req.Timeout = min(repairTurn, max(left, time.Millisecond)).String()
		}
		resp, body, err := s.repair(ctx, req)
		if err != nil {
			return err
		}
		switch {
		case resp.GetDone() && s.json, !c.Wait && s.json:
			return s.printRawJSON(body)
		case resp.GetDone():
			return s.print("All hints and differences of the start are gone.\n")
		case !c.Wait:
			return s.print(tasksText(s.out, resp.GetWaiting()))
		case time.Since(began) >= c.Within:
			return &failure{code: ExitError, title: "not done in time", detail: fmt.Sprintf("after %s this is left:\n%s", c.Within,
				tasksText(palette{}, resp.GetWaiting()))}
		}
		if s.env.StderrTerminal {
			complain(s.env.Stderr, "waiting for %s\n", plural(uint32(len(resp.GetWaiting())), "task"))
		}
		req = &clusterv1.RepairRequest{Token: resp.GetToken()}
	}
}

// repair sends one request, which may last as long as its timeout says.
func (s *session) repair(ctx context.Context, req *clusterv1.RepairRequest) (*clusterv1.RepairResponse, []byte, error) {
	spaced, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(req)
	var b bytes.Buffer
	if err == nil {
		err = json.Compact(&b, spaced) // the package puts spaces in or not, as it likes
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encode the request: %w", err)
	}
	client := *s.client
	client.timeout = max(client.timeout, repairTurn)
	resp := &clusterv1.RepairResponse{}
	body, err := s.fetch(ctx, &client, call{method: http.MethodPost, path: "/v1/cluster:repair", body: b.Bytes(),
		header: http.Header{"Content-Type": {"application/json"}}}, resp)
	return resp, body, err
}
