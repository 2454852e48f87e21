package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// A tourStop is one marked block of the README, and what a reader has to see after it: the patterns, in this order.
type tourStop struct {
	begins string   // of the block's text, so that a block that was moved or rewritten is not checked against another's answers
	shows  []string // regular expressions, found one behind the other
	never  []string
}

// wrote matches the answer to a write: its context, and how many siblings are shown.
func wrote(siblings int) string {
	return fmt.Sprintf(`\{"context":"[\w-]+","siblings":%d,"acks":[23],"hinted":0\}`, siblings)
}

const seenContext = `Kv-Context: [\w-]+\r\n`

var tour = []tourStop{
	{begins: "# Write, and read it back", shows: []string{wrote(1), `HTTP/1\.1 200 OK\r\n`, seenContext, `\r\n\r\nhello$`}},
	{begins: "seen=", shows: []string{wrote(1), wrote(2), `HTTP/1\.1 300 `, seenContext, `\r\n\r\n\{"key":"cart","context":"[\w-]+","siblings":\[`,
		`"value":"(bWlsaw==|YnJlYWQ=)"`, `"value":"(bWlsaw==|YnJlYWQ=)"`}, never: []string{`(bWlsaw==[\s\S]*){2}`, `(YnJlYWQ=[\s\S]*){2}`}},
	{begins: "both=", shows: []string{wrote(1), `HTTP/1\.1 200 OK\r\n`, seenContext, `\r\n\r\nmilk, bread$`}},
	{begins: "mine=", shows: []string{`^v2`, `HTTP/1\.1 200 OK\r\n`, seenContext, `Kv-Explain: `, `\r\n\r\nv2`,
		`"siblings":1,"acks":3,"hinted":0`, wrote(1), `HTTP/1\.1 404 Not Found\r\n`, seenContext, `"type":"/problems/no-value"`,
		`"replicas":\[`, `"role":"primary"`, `"clock":\[`, `"promise":"All 3 members work`, `"results":\[`, `"status":200`, `"status":404`}},
	{begins: "bin/dotringctl status", shows: []string{`All 3 members work`, `node1`, `node2`, `node3`, `blue`, `primary`, `Deleted "colour"`}},
}

const (
	tourMark  = "<!-- tour -->\n```sh\n"
	fenceEnd  = "\n```"
	gateway1  = "127.0.0.1:8080"
	gateway2  = "127.0.0.1:8081"
	ctlInTour = "bin/dotringctl"
)

// What the README shows is what happens: its marked blocks are run as they are printed, in order, against a fresh
// cluster, and what a reader was promised has to appear.
func TestReadmeTour(t *testing.T) {
	for _, needed := range []string{"bash", "curl", "sed", "tr"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Skipf("%s is missing: the tour cannot be run here", needed)
		}
	}
	text := readme(t)
	blocks := tourBlocks(text)
	if len(blocks) != len(tour) {
		t.Fatalf("the README has %d marked blocks, and %d are known here", len(blocks), len(tour))
	}
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	for i, stop := range tour {
		if !strings.HasPrefix(blocks[i], stop.begins) {
			t.Fatalf("block %d begins with %.40q, want %q", i+1, blocks[i], stop.begins)
		}
		out := runBlock(t, c, blocks[i])
		for _, fault := range stop.faults(out) {
			t.Errorf("block %d: %s\n--- block\n%s\n--- what it printed\n%s", i+1, fault, blocks[i], out)
		}
		if t.Failed() {
			return // the next blocks build upon this one
		}
	}
	if kill := "name " + c.Nodes[1].Name; !strings.Contains(text, "pkill -KILL -f '"+kill+"'") || !strings.Contains(c.Nodes[1].Command(), kill) {
		t.Errorf("the README's way to kill a node does not match its command line: %s", c.Nodes[1].Command())
	}
}

// No line of the README that talks to the cluster escapes the tour, and the marks are there at all.
func TestReadmeTourIsWhole(t *testing.T) {
	text := readme(t)
	blocks := tourBlocks(text)
	if len(blocks) < 5 {
		t.Fatalf("only %d marked blocks", len(blocks))
	}
	for _, b := range blocks {
		text = strings.Replace(text, tourMark+b+fenceEnd, "", 1)
	}
	// The first hour is run by make first-hour.
	before, hour, found := strings.Cut(text, "<!-- first hour -->\n")
	_, after, _ := strings.Cut(hour, fenceEnd)
	if text = before + after; !found {
		t.Error("the first hour is gone")
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, ctlInTour+" ") {
			t.Errorf("a command outside of the tour: %s", line)
		}
	}
}

// The checks of the tour find what is missing, in the wrong order, or not to be there.
func TestTourStopCanFail(t *testing.T) {
	stop := tourStop{shows: []string{`one`, `two`}, never: []string{`three`}}
	for out, faults := range map[string]int{
		"one two": 0, "one": 1, "two one": 1, "": 1, "one two three": 1, "three": 2,
	} {
		if got := stop.faults(out); len(got) != faults {
			t.Errorf("%q: found %q, want %d faults", out, got, faults)
		}
	}
}

// faults says what a block's output lacks; what comes behind something missing is not looked for.
func (s tourStop) faults(out string) (faults []string) {
	rest := out
	for _, want := range s.shows {
		at := regexp.MustCompile(want).FindStringIndex(rest)
		if at == nil {
			faults = append(faults, fmt.Sprintf("%s is not shown, or too early", want))
			break
		}
		rest = rest[at[1]:]
	}
	for _, bad := range s.never {
		if regexp.MustCompile(bad).MatchString(out) {
			faults = append(faults, fmt.Sprintf("%s is shown", bad))
		}
	}
	return faults
}

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tourBlocks returns the text of the marked blocks.
func tourBlocks(text string) (blocks []string) {
	for _, part := range strings.Split(text, tourMark)[1:] {
		block, _, _ := strings.Cut(part, fenceEnd)
		blocks = append(blocks, block)
	}
	return blocks
}

// runBlock runs a block as a reader would, with this cluster's gateways and programs in place of those of `make run`,
// and returns what it printed. A command that fails ends the test.
func runBlock(t *testing.T, c *localcluster.Cluster, block string) string {
	t.Helper()
	script := strings.NewReplacer(gateway1, c.Gateways[0].HTTP, gateway2, c.Gateways[1].HTTP,
		ctlInTour, program("dotringctl")+" --gateway http://"+c.Gateways[0].HTTP).Replace(block)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1", "NO_COLOR=1", "LC_ALL=C")
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n--- block\n%s\n--- what it printed\n%s", err, block, out)
	}
	return string(out)
}
