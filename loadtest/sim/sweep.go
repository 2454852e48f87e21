package sim

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/dotring/dotring/loadtest/history"
)

// Sweep runs seed after seed from first.Seed on, several at a time, each in a goroutine of its own, and calls each with the results in the
// order of the seeds until it answers false or ctx ends. An error is the simulator's own, or ctx's.
func Sweep(ctx context.Context, first Config, jobs int, each func(Result) bool) error {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	type outcome struct {
		res Result
		err error
	}
	waiting := make([]chan outcome, 0, max(jobs, 1))
	for seed := first.Seed; ; {
		for len(waiting) < max(jobs, 1) && ctx.Err() == nil {
			done, cfg := make(chan outcome, 1), first
			cfg.Seed = seed
			running.Go(func() {
				res, err := Run(cfg)
				done <- outcome{res, err}
			})
			waiting = append(waiting, done)
			seed++
		}
		if len(waiting) == 0 {
			return ctx.Err()
		}
		o := <-waiting[0]
		waiting = waiting[1:]
		if o.err != nil {
			return o.err
		}
		if !each(o.res) {
			return nil
		}
	}
}

// Hunt says how soon a planted bug is found.
type Hunt struct {
	Planted PlantedBug
	Seed    uint64 // the first that breaks the expected promise before any other; 0 for none
	Found   history.Violation
	Tried   int
}

// TableHead is the head of the table of planted bugs, and Hunt.Row a line of it.
const TableHead = "| bug | what it does | breaks promise | profile | first seed | what was found |\n|---|---|---|---|---|---|\n"

// Row is the hunt as a line of a table in Markdown.
func (h Hunt) Row() string {
	seed, profile := fmt.Sprint(h.Seed), string(h.Planted.Profile)
	if h.Seed == 0 {
		seed = fmt.Sprintf("none of %d", h.Tried)
	}
	if profile == "" {
		profile = "usual"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s |", h.Planted.Bug, h.Planted.What, h.Planted.Breaks, profile, seed, h.Found.What)
}

//go:embed failed.txt
var failed string // lines of a profile, a seed and what it showed

// Failed lists the runs that once broke a promise without a planted bug, as they are kept in failed.txt. A seed tells
// the same story only while the simulator draws its faults in the same order, so what a failure showed is a test elsewhere too.
func Failed() (out []Config, err error) {
	for line := range strings.Lines(failed) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] == "#" {
			continue
		}
		seed, err := strconv.ParseUint(f[1], 10, 64)
		p := Profile(f[0])
		if p == "usual" {
			p = Usual
		} else if !slices.Contains(Profiles(), p) {
			return nil, fmt.Errorf("failed.txt: no profile %q", p)
		}
		if err != nil {
			return nil, fmt.Errorf("failed.txt: %w", err)
		}
		out = append(out, Config{Seed: seed, Profile: p})
	}
	return out, nil
}

// Find runs a planted bug over seeds 1 to most, until one breaks the promise that was expected to break.
func Find(ctx context.Context, p PlantedBug, most, jobs int) (Hunt, error) {
	h := Hunt{Planted: p}
	err := Sweep(ctx, Config{Seed: 1, Profile: p.Profile, Bug: p.Bug}, jobs, func(r Result) bool {
		h.Tried++
		if len(r.Violations) > 0 && r.Violations[0].Promise == p.Breaks {
			h.Seed, h.Found = r.Seed, r.Violations[0]
		}
		return h.Seed == 0 && h.Tried < most
	})
	return h, err
}
