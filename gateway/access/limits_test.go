package access

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/limit"
)

// clock is a time that only moves when it is told to.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(1_000_000, c.at.Load()) }
func (c *clock) pass(d time.Duration) { c.at.Add(int64(d)) }
func write(t *testing.T, path, s string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
}

// limited is a file of two tokens, the first of which has limits.
func limited(t *testing.T, limits string) (text, token, other string) {
	t.Helper()
	token, e, err := NewToken("app", time.Time{}, []EntryRule{{"", []string{"get"}}})
	if err != nil {
		t.Fatal(err)
	}
	other, f, err := NewToken("other", time.Time{}, []EntryRule{{"", []string{"get"}}})
	if err != nil {
		t.Fatal(err)
	}
	row := func(e Entry, limits string) string {
		return "  - {name: " + e.Name + ", sha256: " + e.SHA256 + limits + ", rules: [{prefix: '', allow: [get]}]}\n"
	}
	return "tokens:\n" + row(e, limits) + row(f, ""), token, other
}

func who(t *testing.T, g *Guard, token string) *Principal {
	t.Helper()
	p, err := g.Authenticate([]string{"Bearer " + token})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestATokenIsHeldToItsLimits(t *testing.T) {
	var c clock
	path := filepath.Join(t.TempDir(), "access.yaml")
	text, token, other := limited(t, ", limits: {per_second: 10, burst: 5, at_once: 2}")
	write(t, path, text)
	g, err := Load(path, c.now, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	p := who(t, g, token)
	for range 2 {
		if err := p.Enter(c.now()); err != nil {
			t.Fatal(err)
		}
	}
	exceeds := func(err error, wait time.Duration, what string) {
		t.Helper()
		var e *limit.Exceeded
		if !errors.As(err, &e) || e.Wait != wait || !strings.Contains(e.What, what) {
			t.Errorf("got %v (%+v), want %q after %v", err, e, what, wait)
		}
	}
	exceeds(p.Enter(c.now()), time.Second, "2 requests")
	p.Leave()
	if err := p.Charge(4, c.now()); err != nil {
		t.Error(err)
	}
	exceeds(p.Enter(c.now()), 100*time.Millisecond, "10 operations a second")
	exceeds(p.Charge(3, c.now()), 200*time.Millisecond, "10 operations a second")
	c.pass(100 * time.Millisecond)
	if err := p.Enter(c.now()); err != nil { // the place of the one that was too fast was given back
		t.Error(err)
	}
	// Others are not held to it, nor a gateway without rules.
	for range 100 {
		if err := errors.Join(who(t, g, other).Enter(c.now()), (*Principal)(nil).Enter(c.now())); err != nil {
			t.Fatal(err)
		}
	}
	(*Principal)(nil).Leave()
	want := `
# HELP dotring_access_token_in_flight_requests Requests for keys under way, of each token that has limits.
# TYPE dotring_access_token_in_flight_requests gauge
dotring_access_token_in_flight_requests{token="app"} 2
# HELP dotring_access_token_refused_total Requests refused since their token was at a limit of its own: operations per_second, or requests at_once.
# TYPE dotring_access_token_refused_total counter
dotring_access_token_refused_total{limit="at_once",token="app"} 1
dotring_access_token_refused_total{limit="per_second",token="app"} 2
`
	reg := prometheus.NewRegistry()
	reg.MustRegister(g)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}

	// Another file holds from the next look at it on; what is under way is known still, and nothing is given as a present.
	write(t, path, strings.Replace(text, "per_second: 10, burst: 5, at_once: 2", "per_second: 1, at_once: 3 ", 1))
	c.pass(recheck)
	now := who(t, g, token)
	if now == p {
		t.Fatal("the file was not read again")
	}
	if err := now.Enter(c.now()); err != nil {
		t.Error(err)
	}
	exceeds(now.Enter(c.now()), time.Second, "3 requests")
	p.Leave() // by the old rules
	p.Leave()
	exceeds(now.Enter(c.now()), time.Second, "1 operations")
	c.pass(recheck)
	if err := now.Enter(c.now()); err != nil {
		t.Error(err)
	}
	// A batch larger than a burst is let in after a rest, and paid for then.
	c.pass(time.Hour)
	if err := errors.Join(now.Enter(c.now()), now.Charge(60, c.now())); err != nil {
		t.Error(err)
	}
	now.Leave()
	exceeds(now.Enter(c.now()), time.Minute, "1 operations")
	write(t, path, strings.Replace(text, ", limits: {per_second: 10, burst: 5, at_once: 2}", "", 1))
	c.pass(recheck)
	for range 100 {
		if err := who(t, g, token).Enter(c.now()); err != nil {
			t.Fatalf("no limits are left: %v", err)
		}
	}
}

// Requests that come together take no more than there is.
func TestLimitsAreShared(t *testing.T) {
	var c clock
	path := filepath.Join(t.TempDir(), "access.yaml")
	text, token, _ := limited(t, ", limits: {per_second: 100}")
	write(t, path, text)
	g, err := Load(path, c.now, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	p, now := who(t, g, token), c.now()
	var in atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if p.Enter(now) == nil {
					in.Add(1)
					p.Leave()
				}
			}
		})
	}
	all.Wait()
	if in.Load() != 100 || p.use.underWay.Load() != 0 {
		t.Errorf("%d were let in, %d are under way", in.Load(), p.use.underWay.Load())
	}
	c.pass(time.Hour)
	if n := testing.AllocsPerRun(100, func() {
		if p.Enter(c.now()) == nil {
			p.Leave()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFaultsOfLimits(t *testing.T) {
	for limits, want := range map[string]string{
		"{per_second: -1}":           "-1 operations a second",
		"{per_second: .nan}":         "NaN operations",
		"{per_second: 1e9}":          "not within",
		"{burst: 5}":                 "per_second, which is missing",
		"{per_second: 1, burst: -5}": "burst of -5",
		"{at_once: -1}":              "at_once -1",
		"{at_onse: 1}":               "at_onse",
	} {
		text, _, _ := limited(t, ", limits: "+limits)
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", limits, err)
		}
	}
}
