package ctl

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/ringsvc/mtls"
)

func succeed(t *testing.T, args ...string) string {
	t.Helper()
	r := run(t, terminals{}, "", nil, args...)
	if r.code != ExitOK {
		t.Fatalf("%v: exit code %d, %s", args, r.code, r.stderr)
	}
	return r.stdout
}

func refuse(t *testing.T, code int, says string, args ...string) {
	t.Helper()
	if r := run(t, terminals{}, "", nil, args...); r.code != code || !strings.Contains(r.stderr, says) {
		t.Errorf("%v: exit code %d, %q; want %d and %q", args, r.code, r.stderr, code, says)
	}
}

// What cert makes is what servers take, each with its role, and what --ca trusts.
func TestCert(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	succeed(t, "cert", "authority", dir)
	succeed(t, "cert", "node", "n1", "--authority", dir)
	succeed(t, "cert", "gateway", "g1", "--authority", dir, "--host", "127.0.0.1", "--host", "kv.example.org", "--days", "2")
	succeed(t, "cert", "client", "c1", "--authority", dir)
	for name, hosts := range map[string][]string{"n1": {mtls.RoleNode}, "g1": {mtls.RoleGateway, "kv.example.org"}, "c1": nil} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(pair.Leaf.DNSNames, hosts) {
			t.Errorf("%s is for %q", name, pair.Leaf.DNSNames)
		}
		info, err := os.Stat(filepath.Join(dir, name+".key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key of %s: %v, %v", name, info.Mode(), err)
		}
	}
	refuse(t, ExitError, "is there already", "cert", "node", "n1", "--authority", dir)
	succeed(t, "cert", "node", "n1", "--authority", dir, "--force")
	refuse(t, ExitError, "is there already", "cert", "authority", dir)
	refuse(t, ExitError, "read the authority", "cert", "node", "n2", "--authority", t.TempDir())
	refuse(t, ExitUsage, "two files", "cert", "node", "../n2", "--authority", dir)
	refuse(t, ExitUsage, "at least 1", "cert", "node", "n2", "--authority", dir, "--days", "0")

	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "g1.pem"), filepath.Join(dir, "g1.key"))
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan string, 4)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("Authorization")
		w.WriteHeader(http.StatusNotFound)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	secret := filepath.Join(dir, "token")
	if err := os.WriteFile(secret, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, terminals{}, "", nil, "--gateway", srv.URL, "--ca", filepath.Join(dir, "ca.pem"), "--token-file", secret, "get", "k"); r.code != ExitError {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	if got := <-sent; got != "Bearer abc" {
		t.Errorf("sent %q", got)
	}
	if r := run(t, terminals{}, "", map[string]string{"DOTRING_TOKEN": "xyz"}, "--gateway", srv.URL, "--ca", filepath.Join(dir, "ca.pem"), "get", "k"); r.code != ExitError {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	if got := <-sent; got != "Bearer xyz" {
		t.Errorf("sent %q", got)
	}
	refuse(t, ExitError, "certificate", "--gateway", srv.URL, "get", "k")
	refuse(t, ExitUsage, "--ca", "--gateway", srv.URL, "--ca", secret, "get", "k")
	refuse(t, ExitUsage, "--token-file", "--token-file", filepath.Join(dir, "nowhere"), "get", "k")
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.yaml")
	one := strings.TrimSpace(succeed(t, "token", "web", "--file", file, "--allow", "user/=get,put", "--allow", "user/x="))
	two := strings.TrimSpace(succeed(t, "token", "ops", "--file", file, "--allow", "=admin", "--expires", "1h"))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := access.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	web, err := rules.Authenticate(one, time.Now())
	if err != nil || !web.Allows(access.Put, []byte("user/1")) || web.Allows(access.Get, []byte("user/x1")) || web.Administers() {
		t.Errorf("web: %v", err)
	}
	if ops, err := rules.Authenticate(two, time.Now()); err != nil || !ops.Administers() || ops.Allows(access.Get, []byte("k")) {
		t.Errorf("ops: %v", err)
	}
	if _, err := rules.Authenticate(two, time.Now().Add(2*time.Hour)); err == nil {
		t.Error("the token does not end")
	}
	refuse(t, ExitError, "same name", "token", "web", "--file", file, "--allow", "=get")
	refuse(t, ExitUsage, "PREFIX=ACTIONS", "token", "x", "--file", file, "--allow", "get")
	refuse(t, ExitUsage, "none of get", "token", "x", "--file", file, "--allow", "a=take")
	if after, err := os.ReadFile(file); err != nil || string(after) != string(text) {
		t.Error("a refused token changed the file")
	}
}

// The three steps of a change of gossip keys, each of which leaves a file that nodes take.
func TestKeyring(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	read := func() []string {
		t.Helper()
		var keys []string
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &keys)
		}
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	succeed(t, "keyring", "new", file)
	first := read()
	refuse(t, ExitError, "is there already", "keyring", "new", file)
	refuse(t, ExitError, "add one first", "keyring", "promote", file)
	succeed(t, "keyring", "add", file)
	both := read()
	succeed(t, "keyring", "promote", file)
	promoted := read()
	succeed(t, "keyring", "prune", file)
	last := read()
	if len(both) != 2 || both[0] != first[0] || promoted[0] != both[1] || promoted[1] != both[0] || len(last) != 1 || last[0] != both[1] {
		t.Errorf("%q, %q, %q, %q", first, both, promoted, last)
	}
}
