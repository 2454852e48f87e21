package coordinator

import (
	"errors"
	"testing"
)

func TestPolicies(t *testing.T) {
	p, err := ParsePolicies([]string{"cache/=lww", "cache/carts/=siblings", "a=b=lww"})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{"cache/x": true, "cache/": true, "cache": false, "cache/carts/7": false, "a=bc": true,
		"a": false, "": false} {
		if got := p.LastWriteWins([]byte(key)); got != want {
			t.Errorf("%q: %v, want %v", key, got, want)
		}
	}
	if (Policies{}).LastWriteWins([]byte("k")) {
		t.Error("without rules the last write wins")
	}
	if all, err := ParsePolicies([]string{"=lww"}); err != nil || !all.LastWriteWins([]byte("k")) {
		t.Errorf("the empty prefix does not match: %v", err)
	}
	for _, bad := range [][]string{{"x"}, {"x=last"}, {"x=lww", "x=siblings"}, make([]string, maxPolicies+1)} {
		if _, err := ParsePolicies(bad); !errors.Is(err, ErrPolicy) {
			t.Errorf("%.40q is taken: %v", bad, err)
		}
	}
}
