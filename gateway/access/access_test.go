package access

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"
)

// make a file of one token with rules.
func file(t testing.TB, rules ...EntryRule) (text []byte, token string) {
	t.Helper()
	token, e, err := NewToken("app", time.Time{}, rules)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = Append(nil, e); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), token) {
		t.Fatal("the token itself is in the file")
	}
	return text, token
}

func principal(t testing.TB, rules ...EntryRule) *Principal {
	t.Helper()
	text, token := file(t, rules...)
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Authenticate(token, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLongestPrefixDecides(t *testing.T) {
	p := principal(t, EntryRule{"", []string{"get", "admin"}}, EntryRule{"user/", []string{"get", "put", "delete"}},
		EntryRule{"user/secret/", nil}, EntryRule{"user/secret/mine", []string{"put"}})
	for _, tc := range []struct {
		action Action
		key    string
		want   bool
	}{
		{Get, "other", true}, {Put, "other", false}, {Put, "user/1", true}, {Delete, "user/", true}, {Put, "user", false},
		{Get, "user/secret/x", false}, {Put, "user/secret/mine", true}, {Get, "user/secret/mine", false}, {Put, "user/secreu", true},
		{Put, "user/secret/mine/2", true}, {Get, "user/secret/zzz", false},
	} {
		if got := p.Allows(tc.action, []byte(tc.key)); got != tc.want {
			t.Errorf("%v %q: %v", tc.action, tc.key, got)
		}
	}
	if !p.Administers() || principal(t, EntryRule{"", []string{"get", "put", "delete"}}).Administers() {
		t.Error("only admin administers")
	}
}

// Against a twin that looks at every rule.
func TestAllowsAsItsTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 0, 4, -1)
		var rules []rule
		seen := map[string]bool{}
		for range rapid.IntRange(1, 8).Draw(t, "rules") {
			r := rule{prefix: text.Draw(t, "prefix"), actions: Action(rapid.IntRange(0, 7).Draw(t, "actions"))}
			if !seen[r.prefix] {
				seen[r.prefix] = true
				rules = append(rules, r)
			}
		}
		e := Entry{Name: "x", SHA256: strings.Repeat("0", 64)}
		for _, r := range rules {
			er := EntryRule{Prefix: r.prefix}
			for _, a := range []Action{Get, Put, Delete} {
				if r.actions&a != 0 {
					er.Allow = append(er.Allow, a.String())
				}
			}
			e.Rules = append(e.Rules, er)
		}
		_, p, faults := e.compile()
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		key := text.Draw(t, "key")
		for _, a := range []Action{Get, Put, Delete} {
			want, longest := false, -1
			for _, r := range rules {
				if strings.HasPrefix(key, r.prefix) && len(r.prefix) > longest {
					want, longest = r.actions&a != 0, len(r.prefix)
				}
			}
			if got := p.Allows(a, []byte(key)); got != want {
				t.Fatalf("%v %q by %v: %v", a, key, rules, got)
			}
		}
	})
}

func TestFaultsOfFiles(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "no token"},
		{"unknown field", "tokenz: []", "tokenz"},
		{"no name", "tokens: [{sha256: " + hash + ", rules: [{prefix: a, allow: [get]}]}]", "a name"},
		{"short hash", "tokens: [{name: a, sha256: abcd, rules: [{prefix: a, allow: [get]}]}]", "64 hexadecimal"},
		{"unknown action", "tokens: [{name: a, sha256: " + hash + ", rules: [{prefix: a, allow: [take]}]}]", "take"},
		{"admin of a prefix", "tokens: [{name: a, sha256: " + hash + ", rules: [{prefix: a, allow: [admin]}]}]", "whole cluster"},
		{"no rules", "tokens: [{name: a, sha256: " + hash + "}]", "0 rules"},
		{"two rules", "tokens: [{name: a, sha256: " + hash + ", rules: [{prefix: a, allow: [get]}, {prefix: a, allow: [put]}]}]", "two for this prefix"},
		{"long prefix", "tokens: [{name: a, sha256: " + hash + ", rules: [{prefix: " + strings.Repeat("a", 251) + ", allow: [get]}]}]", "250"},
		{"same hash", "tokens: [{name: a, sha256: " + hash + ", rules: [{prefix: a, allow: [get]}]}, {name: b, sha256: " + hash + ", rules: [{prefix: a, allow: [get]}]}]", "same hash"},
		{"same name", "tokens: [{name: a, sha256: " + hash + ", rules: [{prefix: a, allow: [get]}]}, {name: a, sha256: " + strings.Repeat("cd", 32) + ", rules: [{prefix: a, allow: [get]}]}]", "same name"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Parse([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestExpires(t *testing.T) {
	now := time.Now()
	token, e, err := NewToken("app", now.Add(time.Hour), []EntryRule{{"", []string{"get"}}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := Append(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Authenticate(token, now.Add(59*time.Minute)); err != nil {
		t.Error(err)
	}
	if _, err := r.Authenticate(token, now.Add(61*time.Minute)); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("after its end: %v", err)
	}
}

// The file is read again when it changed, and its last good state stays where it cannot be used.
func TestGuardReloads(t *testing.T) {
	now := time.Now()
	path := filepath.Join(t.TempDir(), "access.yaml")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * recheck)
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	first, one := file(t, EntryRule{"", []string{"get"}})
	write(first)
	g, err := Load(path, func() time.Time { return now }, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	known := func(token string) bool {
		_, err := g.Authenticate([]string{"Bearer " + token})
		return err == nil
	}
	if !known(one) {
		t.Fatal("the token is not known")
	}
	write([]byte("tokens: [half"))
	if !known(one) {
		t.Fatal("a damaged file took the token away")
	}
	second, two := file(t, EntryRule{"", []string{"get"}})
	write(second)
	if known(one) || !known(two) {
		t.Error("the changed file is not in force")
	}
	for _, lines := range [][]string{nil, {""}, {two}, {"Basic " + two}, {"Bearer " + two, "Bearer " + two}, {"Bearer "}} {
		if _, err := g.Authenticate(lines); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%q: %v", lines, err)
		}
	}
	if p, err := g.Authenticate([]string{"bearer  " + two}); err != nil || p.Name() != "app" {
		t.Errorf("scheme in small letters: %v", err)
	}
	if _, err := g.From(t.Context()); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("nobody was asked: %v", err)
	}
	if p, err := (*Guard)(nil).From(t.Context()); err != nil || !p.Allows(Put, nil) || !p.Administers() {
		t.Error("without rules everybody may do everything")
	}
}

func FuzzParse(f *testing.F) {
	text, _ := file(f, EntryRule{"user/", []string{"get", "put"}})
	f.Add(text)
	f.Add([]byte("tokens: [{name: a}]"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err == nil && r.Size() == 0 {
			t.Error("rules without tokens")
		}
	})
}

// Estimate before measuring: a SHA-256 of 51 bytes (about 80 ns) and a map lookup, without allocations.
// Measured (2 shared cores): 0.5 to 0.7 µs, one allocation of 64 bytes, in which the token is hashed.
func BenchmarkAuthenticate(b *testing.B) {
	text, token := file(b, EntryRule{"user/", []string{"get"}})
	path := filepath.Join(b.TempDir(), "access.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		b.Fatal(err)
	}
	g, err := Load(path, time.Now, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	lines := []string{"Bearer " + token}
	b.ReportAllocs()
	for b.Loop() {
		p, err := g.Authenticate(lines)
		if err != nil || !p.Allows(Get, []byte("user/1")) {
			b.Fatal("denied")
		}
	}
}
