package httpapi_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/dotring/dotring/gateway/access"
)

// guarded makes a guard with one token.
func guarded(t testing.TB, rules ...access.EntryRule) (*access.Guard, string) {
	t.Helper()
	return guardedWith(t, nil, rules...)
}

// guardedWith makes a guard with one token that has limits.
func guardedWith(t testing.TB, limits *access.EntryLimits, rules ...access.EntryRule) (*access.Guard, string) {
	t.Helper()
	token, e, err := access.NewToken("limited", time.Time{}, rules)
	if err != nil {
		t.Fatal(err)
	}
	e.Limits = limits
	text, err := access.Append(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "access.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := access.Load(path, time.Now, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return g, token
}
