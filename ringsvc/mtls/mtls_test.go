package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// clock is a clock that a test sets.
type clock struct{ now time.Time }

func (c *clock) get() time.Time { return c.now }

func authority(t *testing.T, now time.Time) Pair {
	t.Helper()
	ca, err := NewAuthority("test", now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// write issues a certificate for hosts and writes the three files.
func write(t *testing.T, dir string, ca, trusted Pair, now time.Time, life time.Duration, hosts ...string) Files {
	t.Helper()
	p, err := Issue(ca, "test", hosts, now, life)
	if err != nil {
		t.Fatal(err)
	}
	f := Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem")}
	for path, b := range map[string][]byte{f.Cert: p.Cert, f.Key: p.Key, f.CA: trusted.Cert} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func load(t *testing.T, f Files, c *clock) *Source {
	t.Helper()
	s, err := Load(f, c.get, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shake makes a connection and returns the error of each side.
func shake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		tc := tls.Server(conn, server)
		err = tc.Handshake()
		if err == nil {
			_, err = tc.Write([]byte("x"))
		}
		done <- errors.Join(err, conn.Close())
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tc := tls.Client(conn, client)
	clientErr = tc.Handshake()
	if clientErr == nil {
		// In TLS 1.3 a client learns that its certificate was refused when it reads.
		_, clientErr = io.ReadFull(tc, make([]byte, 1))
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	return <-done, clientErr
}

// Who is let in and by whom: the authority, the role, the time and the version of TLS decide.
func TestHandshakes(t *testing.T) {
	c := &clock{now: time.Now()}
	ours, foreign := authority(t, c.now), authority(t, c.now)
	node := load(t, write(t, t.TempDir(), ours, ours, c.now, time.Hour, RoleNode), c)
	gateway := load(t, write(t, t.TempDir(), ours, ours, c.now, time.Hour, RoleGateway, "127.0.0.1"), c)
	person := load(t, write(t, t.TempDir(), ours, ours, c.now, time.Hour, "alice"), c)
	stranger := load(t, write(t, t.TempDir(), foreign, ours, c.now, time.Hour, RoleNode), c)
	expired := load(t, write(t, t.TempDir(), ours, ours, c.now.Add(-2*time.Hour), time.Hour, RoleNode), c)
	old := gateway.Client(RoleNode)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	bare := gateway.Client(RoleNode)
	bare.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	trusting := x509.NewCertPool()
	trusting.AppendCertsFromPEM(ours.Cert)
	browser := &tls.Config{RootCAs: trusting, ServerName: "127.0.0.1"}
	internal := node.Server(RoleNode, RoleGateway)
	for _, tc := range []struct {
		name           string
		server, client *tls.Config
		ok             bool
	}{
		{"node to node", internal, node.Client(RoleNode), true},
		{"gateway to node", internal, gateway.Client(RoleNode), true},
		{"a person to a node", internal, person.Client(RoleNode), false},
		{"a gateway taken for a node", gateway.Server(), node.Client(RoleNode), false},
		{"foreign authority's client", internal, stranger.Client(RoleNode), false},
		{"foreign authority's server", stranger.Server(), node.Client(RoleNode), false},
		{"expired client", internal, expired.Client(RoleNode), false},
		{"expired server", expired.Server(), node.Client(RoleNode), false},
		{"TLS 1.2", internal, old, false},
		{"no certificate", internal, bare, false},
		{"a person to a gateway", gateway.Server(), person.Client(RoleGateway), true},
		{"a browser to a gateway", gateway.Public(), browser, true},
		{"a browser to a gateway's gRPC", gateway.Server(), browser, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			serverErr, clientErr := shake(t, tc.server, tc.client)
			if ok := serverErr == nil && clientErr == nil; ok != tc.ok {
				t.Errorf("server: %v; client: %v", serverErr, clientErr)
			}
		})
	}
}

// Files that change are used for the next connection; what cannot be used leaves the old ones in force, and is tried
// again.
func TestReload(t *testing.T) {
	c := &clock{now: time.Now()}
	first, second := authority(t, c.now), authority(t, c.now)
	dir := t.TempDir()
	f := write(t, dir, first, first, c.now, time.Hour, RoleNode)
	s := load(t, f, c)
	both := Pair{Cert: append(append([]byte(nil), first.Cert...), second.Cert...)}
	peer := load(t, write(t, t.TempDir(), second, both, c.now, time.Hour, RoleNode), c)
	refused := func() bool {
		serverErr, clientErr := shake(t, s.Server(RoleNode), peer.Client(RoleNode))
		return serverErr != nil || clientErr != nil
	}
	if !refused() {
		t.Fatal("an authority was trusted before it was named")
	}
	if err := os.WriteFile(f.CA, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(2 * recheck)
	if !refused() || s.Expires().IsZero() {
		t.Fatal("a damaged file changed who is trusted")
	}
	write(t, dir, first, both, c.now, 2*time.Hour, RoleNode)
	if !refused() {
		t.Fatal("files were read again within a second")
	}
	before := s.cur.cert.Leaf.NotAfter
	c.now = c.now.Add(2 * recheck)
	if refused() {
		t.Error("the new authority is not trusted")
	}
	if !s.Expires().After(before) {
		t.Error("the new certificate is not used")
	}
}

func TestBadFiles(t *testing.T) {
	now := time.Now()
	ca := authority(t, now)
	dir := t.TempDir()
	good := write(t, dir, ca, ca, now, time.Hour, RoleNode)
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		files Files
		want  string
	}{
		{"none", Files{}, "no certificate files"},
		{"no key", Files{Cert: good.Cert, CA: good.CA}, "belong together"},
		{"no such file", Files{Cert: good.Cert, Key: good.Key, CA: filepath.Join(dir, "nowhere")}, "nowhere"},
		{"empty authorities", Files{Cert: good.Cert, Key: good.Key, CA: empty}, "holds no certificate"},
		{"no key in the key file", Files{Cert: good.Cert, Key: good.CA, CA: good.CA}, "key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Load(tc.files, time.Now, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An issued certificate does not outlive its authority, and only an authority issues.
func TestIssue(t *testing.T) {
	now := time.Now()
	ca := authority(t, now)
	p, err := Issue(ca, "n", []string{RoleNode, "::1"}, now, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	if limit := now.Add(24*time.Hour + time.Second); pair.Leaf.NotAfter.After(limit) || len(pair.Leaf.IPAddresses) != 1 {
		t.Errorf("ends %v with addresses %v", pair.Leaf.NotAfter, pair.Leaf.IPAddresses)
	}
	if _, err := Issue(p, "n", nil, now, time.Hour); err == nil {
		t.Error("a certificate that is no authority issued another")
	}
}
