package quorum

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// node is the id of a node named by one letter.
func node(name string) ring.NodeID { return ring.NodeID{0: name[0]} }

func letter(n ring.NodeID) string { return string(n[0]) }

// version makes a set from the name of a write: x2 is the second of actor x, which superseded the first; x1+y1 are two
// siblings.
func version(name string) causal.Set {
	var set causal.Set
	for _, part := range strings.Split(name, "+") {
		counter, err := strconv.Atoi(part[1:])
		if err != nil {
			panic(err)
		}
		d := causal.Dot{Actor: causal.Actor{0: part[0]}, Counter: uint64(counter)}
		set = causal.Merge(set, causal.Set{Clock: causal.Vector{d}, Siblings: []causal.Sibling{{Dot: d}}})
	}
	return set
}

func digestOf(name string) record.Digest {
	d := record.Digest{15: 1}
	copy(d[:], name)
	return d
}

func nameOf(set causal.Set) string {
	if len(set.Clock) == 0 {
		return "absent"
	}
	var parts []string
	for _, s := range set.Siblings {
		parts = append(parts, fmt.Sprintf("%c%d", s.Dot.Actor[0], s.Dot.Counter))
	}
	return strings.Join(parts, "+")
}

// TestTranscripts plays each file of testdata: a command or an event on the first lines, then what the decider wants.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 2 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("the transcript differs; run with -update and review:\n%s", firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d: got %q, want %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}

// play runs a transcript and returns it with the outputs it should have.
func play(t *testing.T, text string) string {
	var out bytes.Buffer
	p := &player{t: t, away: map[string]bool{}, suspect: map[string]bool{}, silent: map[string]bool{}}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "> "): // an old output
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
		default:
			fmt.Fprintln(&out, line)
			for _, o := range p.command(strings.Fields(line)) {
				fmt.Fprintln(&out, "> "+o)
			}
		}
	}
	return out.String()
}

// player holds the decider that a transcript drives.
type player struct {
	t                     *testing.T
	get                   *Get
	put                   *Put
	away, suspect, silent map[string]bool
	now                   time.Duration
	budget                *Budget
}

func (p *player) candidate(n string) Candidate {
	return Candidate{Node: node(n), Connected: !p.away[n], Suspect: p.suspect[n], Silent: p.silent[n], Mean: time.Millisecond, P95: 5 * time.Millisecond}
}

func (p *player) command(words []string) []string {
	opts := map[string]string{}
	var args []string
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = v
		} else {
			args = append(args, w)
		}
	}
	switch words[0] {
	case "away", "suspect", "silent", "well":
		for _, n := range args {
			p.away[n], p.suspect[n], p.silent[n] = words[0] == "away", words[0] == "suspect", words[0] == "silent"
		}
		return nil
	case "get":
		return p.startGet(opts)
	case "put", "refresh":
		return p.startPut(words[0], opts)
	}
	if p.get != nil {
		p.getEvent(words[0], args)
		return p.getSteps()
	}
	p.putEvent(words[0], args)
	return p.putSteps()
}

func (p *player) startGet(opts map[string]string) []string {
	p.put, p.get, p.now = nil, &Get{}, 0
	p.budget = NewBudget(0.05, number(opts["budget"], 1))
	cfg := GetConfig{R: number(opts["r"], 2), Wide: opts["wide"] != "", Spread: 1, HedgeAfter: 20 * time.Millisecond}
	for _, n := range strings.Split(opts["of"], ",") {
		cfg.Primaries = append(cfg.Primaries, p.candidate(n))
	}
	if opts["others"] != "" {
		for _, n := range strings.Split(opts["others"], ",") {
			cfg.Others = append(cfg.Others, p.candidate(n))
		}
	}
	var seen *causal.Context
	if c := opts["context"]; c != "" {
		seen = &causal.Context{Vector: version(c).Clock}
	}
	p.get.Start(cfg, seen)
	return p.getSteps()
}

func number(s string, otherwise int) int {
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	return otherwise
}

func (p *player) getEvent(event string, args []string) {
	i := -1
	if event != "tick" {
		if i = p.get.Find(node(args[0])); i < 0 {
			p.t.Fatalf("%s: no replica %s", event, args[0])
		}
	}
	switch event {
	case "record":
		p.get.Record(i, version(args[1]), digestOf(args[1]), []byte(args[1]))
	case "absent":
		p.get.Absent(i)
	case "digest":
		p.get.Digest(i, digestOf(args[1]))
	case "failed":
		p.get.Failed(i, cause(p.t, args[1:]))
	case "suspected":
		p.get.Suspected(i)
	case "tick":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			p.t.Fatal(err)
		}
		p.now += d
		p.get.Tick(p.now, p.budget)
	default:
		p.t.Fatalf("unknown event %q", event)
	}
}

func cause(t *testing.T, words []string) Cause {
	name := strings.Join(words, " ")
	i := slices.Index(causeNames[:], name)
	if i < 1 {
		t.Fatalf("unknown cause %q", name)
	}
	return Cause(i)
}

func (p *player) getSteps() (out []string) {
	for {
		s := p.get.Next(p.now)
		switch s.Do {
		case Wait:
			if at, ok := p.get.HedgeAt(); ok {
				return append(out, fmt.Sprintf("wait, hedge at %s", at))
			}
			return append(out, "wait")
		case Finish:
			return append(out, p.getVerdict())
		}
		out = append(out, s.Do.String()+" "+letter(p.get.Node(s.Replica)))
	}
}

func (p *player) getVerdict() string {
	switch p.get.Verdict() {
	case Reached:
		s := "answer " + nameOf(p.get.Set())
		for i := range p.get.Len() {
			if p.get.Repair(i) {
				s += ", repair " + letter(p.get.Node(i))
			}
		}
		return s
	case Stale:
		return "stale"
	}
	return "impossible: " + p.get.Shortfall().String()
}

func (p *player) startPut(what string, opts map[string]string) []string {
	cfg := PutConfig{Read: number(opts["read"], 0), Health: func(n ring.NodeID) Candidate { return p.candidate(letter(n)) }}
	for _, l := range strings.Split(opts["of"], "/") {
		epoch, owners, found := strings.Cut(l, ":")
		if !found {
			epoch, owners = "1", l
		}
		pl := PutLayout{ID: ring.LayoutID{Epoch: uint64(number(epoch, 1))}, Need: number(opts["w"], 2)}
		for _, n := range strings.Split(owners, ",") {
			pl.Owners = append(pl.Owners, node(n))
		}
		cfg.Layouts = append(cfg.Layouts, pl)
	}
	if what == "refresh" { // nothing is asked for until the refusal itself is told
		p.put.Refresh(cfg)
		return nil
	}
	p.get, p.put = nil, &Put{}
	p.put.Start(cfg)
	return p.putSteps()
}

func (p *player) putEvent(event string, args []string) {
	i := -1
	if len(args) > 0 {
		if i = p.put.Find(node(args[0])); i < 0 {
			p.t.Fatalf("%s: no machine %s", event, args[0])
		}
	}
	// Answers come to what was sent last, unless the round is given.
	round := -1
	if i >= 0 {
		round = p.put.targets[i].round
	}
	switch event {
	case "issued":
		p.put.Issued(i)
	case "durable":
		p.put.Durable(i, round)
	case "failed":
		p.put.Failed(i, round, cause(p.t, args[1:]))
	case "fenced":
		p.put.Fenced(i, round)
	case "doubt":
		p.put.Doubt(i, cause(p.t, args[1:]))
	case "again":
		p.put.Again()
	case "giveup":
		p.put.GiveUp()
	case "gathered":
		p.put.Gathered(true)
	case "ungathered":
		p.put.Gathered(false)
	default:
		p.t.Fatalf("unknown event %q", event)
	}
}

func (p *player) putSteps() (out []string) {
	for {
		s := p.put.Next()
		switch s.Do {
		case Wait:
			if i, yes := p.put.Doubtful(); yes {
				return append(out, "wait for "+letter(p.put.Node(i)))
			}
			return append(out, "wait")
		case Finish:
			return append(out, p.putVerdict())
		case Gather:
			out = append(out, "gather")
			continue
		}
		out = append(out, s.Do.String()+" "+letter(p.put.Node(s.Replica)))
	}
}

func (p *player) putVerdict() string {
	outcome := "in doubt"
	if p.put.NotApplied() {
		outcome = "not applied"
	}
	switch p.put.Verdict() {
	case Reached:
		return fmt.Sprintf("committed by %d", p.put.Acks())
	case Stale:
		return "stale context, " + outcome
	}
	return "impossible: " + p.put.Shortfall().String() + ", " + outcome
}
