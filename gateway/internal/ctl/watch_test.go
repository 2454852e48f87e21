package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
)

// gone is a look that got no answer.
func gone() error {
	return failed(&connError{url: "http://gateway", err: fmt.Errorf("dial: %w", syscall.ECONNREFUSED)}, "")
}

// sight is what one look of a script finds, after how long.
type sight struct {
	v     view
	err   error
	after time.Duration
}

// watched runs a live view over a script, presses Ctrl-C after the last look of it, and returns what was printed when: the
// seconds since the beginning, and the text.
func watched(t *testing.T, env Env, json bool, flags watchFlags, script ...sight) (transcript string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		began := time.Now()
		var b strings.Builder
		record := func(name string) writerFunc {
			return func(p []byte) (int, error) {
				fmt.Fprintf(&b, "--- %s at %v\n%s\n", name, time.Since(began), strings.TrimSuffix(visible(string(p)), "\n"))
				return len(p), nil
			}
		}
		env.Stdout, env.Stderr = record("stdout"), record("stderr")
		if env.Getenv == nil {
			env.Getenv = func(string) string { return "" }
		}
		base, parseErr := parseGateway("http://gateway")
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		s := &session{env: env, json: json, client: newClient(base, 0, "")}
		s.out.on = useColour("auto", env.StdoutTerminal, env.Getenv)
		i := 0
		err = s.show(ctx, flags, "tasks", func(ctx context.Context, wait time.Duration, live bool) (view, error) {
			if live != (env.StdoutTerminal && !json) || wait != watchAnswer {
				t.Errorf("look %d waits %v, live %v", i, wait, live)
			}
			if i == len(script) {
				interrupt()
				return view{}, failed(&connError{url: "http://gateway", err: ctx.Err()}, "")
			}
			now := script[i]
			i++
			timer := time.NewTimer(now.after)
			<-timer.C
			return now.v, now.err
		})
		if i < len(script) && err == nil {
			t.Errorf("the view ended after %d of %d looks", i, len(script))
		}
		transcript = b.String()
	})
	return transcript, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What a live view prints, for people at terminals of any size, into files, and for scripts.
func TestWatchTranscripts(t *testing.T) {
	at := func(p palette, bars bool, change func(*clusterv1.ListTasksResponse)) view {
		list := tasks()
		change(list)
		return view{[]byte(serverJSON(t, list)), tasksTable(p, list.Tasks, bars)}
	}
	all := func(*clusterv1.ListTasksResponse) {}
	last := func(l *clusterv1.ListTasksResponse) {
		l.Tasks = l.Tasks[6:]
		l.Tasks[0].Done = l.Tasks[0].Total
	}
	none := func(l *clusterv1.ListTasksResponse) { l.Tasks = nil }
	script := func(p palette, bars bool) []sight {
		return []sight{{v: at(p, bars, all)}, {v: at(p, bars, last), after: 300 * time.Millisecond}, {err: gone(), after: 2 * time.Second}, {err: gone()},
			{err: &failure{status: 503, title: "hostile " + hostile}}, {v: at(p, bars, none)}}
	}
	size := func(columns, rows int) func() (int, int) { return func() (int, int) { return columns, rows } }
	every := watchFlags{Watch: true, Interval: time.Second}
	noColour := func(name string) string { return map[string]string{"NO_COLOR": "1"}[name] }
	dumb := func(name string) string { return map[string]string{"TERM": "dumb"}[name] }
	for _, c := range []struct {
		name   string
		env    Env
		json   bool
		script []sight
	}{
		{"watch-terminal", Env{StdoutTerminal: true, Size: size(200, 50)}, false, script(palette{on: true}, true)},
		{"watch-small-terminal", Env{StdoutTerminal: true, Size: size(40, 6)}, false, script(palette{on: true}, true)},
		{"watch-no-colour", Env{StdoutTerminal: true, Getenv: noColour}, false, script(palette{}, true)[:3]},
		{"watch-file", Env{}, false, script(palette{}, false)},
		{"watch-json", Env{StdoutTerminal: true}, true, script(palette{}, false)[1:]},
		{"watch-interrupted-at-once", Env{StdoutTerminal: true}, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := watched(t, c.env, c.json, every, c.script...)
			if err != nil {
				t.Errorf("Ctrl-C ends with %v", err)
			}
			golden(t, c.name, got)
		})
	}
	// A terminal that can do nothing is a file.
	env := Env{StdoutTerminal: true, Getenv: dumb}
	synctestShow(t, env, every)
}

// synctestShow looks once on a terminal that is dumb.
func synctestShow(t *testing.T, env Env, flags watchFlags) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		var out bytes.Buffer
		env.Stdout = &out
		s := &session{env: env, client: &client{}}
		looks := 0
		err := s.show(ctx, flags, "status", func(_ context.Context, _ time.Duration, live bool) (view, error) {
			if looks++; looks == 2 {
				interrupt()
			}
			return view{text: fmt.Sprintln("live", live)}, nil
		})
		if err != nil || out.String() != "2000-01-01 00:00:00Z\nlive false\n\n" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
}

// A gateway that is away is asked for a minute, at most every second and at least every five; one that refuses is not asked again.
func TestWatchEnds(t *testing.T) {
	every := watchFlags{Watch: true, Interval: time.Second}
	away := []sight{{v: view{text: "x\n"}}}
	for range 100 {
		away = append(away, sight{err: gone()})
	}
	got, err := watched(t, Env{}, false, every, away...)
	if err == nil || !strings.Contains(got, "tried again for 1m0s") || strings.Count(got, "stderr") != 1 {
		t.Errorf("%v\n%s", err, got)
	}
	denied := &failure{status: 403, title: "denied"}
	for name, c := range map[string][]sight{
		"never there":    {{err: gone()}},
		"denied":         {{v: view{text: "x\n"}}, {err: denied}},
		"denied at once": {{err: denied}},
		"no failure":     {{v: view{text: "x\n"}}, {err: errors.New("defect")}},
	} {
		if _, err := watched(t, Env{}, false, every, c...); !errors.Is(err, c[len(c)-1].err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, interval := range []time.Duration{-1, 0, time.Millisecond, 2 * time.Hour} {
		var usage usageError
		if err := (&session{}).show(t.Context(), watchFlags{Watch: true, Interval: interval}, "x", nil); !errors.As(err, &usage) {
			t.Errorf("interval %v: %v", interval, err)
		}
	}
	// On a terminal the screen that was there before is back when the view ends, however it ends.
	got, err = watched(t, Env{StdoutTerminal: true}, false, every, sight{v: view{text: "x\n"}}, sight{err: denied})
	if err == nil || !strings.HasSuffix(got, "␛[?1049lx\n") {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestOutage(t *testing.T) {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		every  time.Duration
		pauses string
	}{
		{100 * time.Millisecond, "100ms 200ms 400ms 800ms 1.6s 3.2s 5s 5s"},
		{time.Second, "1s 2s 4s 5s 5s 5s 5s 5s"},
		{time.Minute, "1m0s 1m0s 1m0s 1m0s 1m0s 1m0s 1m0s 1m0s"},
	} {
		var o outage
		var pauses []string
		for range 8 {
			next, pause, over := o.next(began, began, "why", c.every)
			if over {
				t.Error("over at once")
			}
			o, pauses = next, append(pauses, pause.String())
		}
		if got := strings.Join(pauses, " "); got != c.pauses || o.tries != 8 {
			t.Errorf("every %v: %s, want %s", c.every, got, c.pauses)
		}
		if _, _, over := o.next(began.Add(watchPatience-1), began.Add(watchPatience-1), "why", c.every); over {
			t.Error("over too early")
		}
		if _, _, over := o.next(began.Add(watchPatience), began.Add(watchPatience), "why", c.every); !over {
			t.Error("never over")
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		line    string
		columns int
		want    string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"節点1", 3, "節"},
		{"e\u0301e\u0301e", 2, "e\u0301e\u0301"},
		{"\x1b[1mab\x1b[0m", 2, "\x1b[1mab\x1b[0m"},
		{"\x1b[1mabc\x1b[0m", 2, "\x1b[1mab\x1b[0m"},
		{"", 1, ""},
	} {
		if got := fit(c.line, c.columns); got != c.want {
			t.Errorf("fit(%q, %d) = %q, want %q", c.line, c.columns, got, c.want)
		}
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		done, total uint64
		want        string
	}{{0, 0, ""}, {0, 1, "[....................]"}, {1, 2, "[##########..........]"}, {99, 100, "[###################.]"},
		{1, 1, "[####################]"}, {5, 1, "[####################]"}, {1<<64 - 1, 1<<64 - 1, "[####################]"}} {
		if got := bar(c.done, c.total); got != c.want {
			t.Errorf("bar(%d, %d) = %s, want %s", c.done, c.total, got, c.want)
		}
	}
}

// The commands themselves, against a gateway: two documents, one a line, and Ctrl-C ends with 0.
func TestWatchCommands(t *testing.T) {
	for verb, answer := range map[string]canned{"status": {200, jsonType, serverJSON(t, status())}, "tasks": {200, jsonType, serverJSON(t, tasks())}} {
		url, got := gateway(t, answer)
		ctx, interrupt := context.WithCancel(t.Context())
		var out, complaints bytes.Buffer
		code := Run(ctx, Env{Args: []string{"--gateway", url, verb, "--watch", "--interval", "100ms", "--timeout", "1m", "-o", "json"}, Stderr: &complaints,
			Getenv: func(string) string { return "" }, Stdout: writerFunc(func(p []byte) (int, error) {
				if n, err := out.Write(p); n == 0 || err != nil {
					t.Error(n, err)
				}
				if bytes.Count(out.Bytes(), []byte("\n")) == 2 {
					interrupt()
				}
				return len(p), nil
			})})
		interrupt()
		lines := strings.Split(out.String(), "\n")
		if code != ExitOK || complaints.Len() > 0 || len(lines) != 3 || lines[0] != lines[1] || !strings.HasPrefix(lines[0], "{") || len(got()) != 2 {
			t.Errorf("%s: code %d\n%s%s", verb, code, out.String(), complaints.String())
		}
	}
}
