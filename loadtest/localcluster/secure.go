package localcluster

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/ringsvc/mtls"
)

// certLife is how long the certificates of a local cluster are good: it is made anew with its data folder.
const certLife = 365 * 24 * time.Hour

// Secrets are the files that make a local cluster secure, once per data folder: an authority, certificates, access rules,
// gossip keys. Paths are absolute.
type Secrets struct {
	Authority, AuthorityKey   string
	NodeCert, NodeKey         string
	GatewayCert, GatewayKey   string
	GossipKeys, Access, Admin string // Admin holds a token that may do everything
}

// At is where the secrets of a data folder lie.
func At(dir string) (Secrets, error) {
	dir, err := filepath.Abs(filepath.Join(dir, "secure"))
	if err != nil {
		return Secrets{}, fmt.Errorf("find secrets: %w", err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return Secrets{Authority: in("ca.pem"), AuthorityKey: in("ca.key"), NodeCert: in("node.pem"), NodeKey: in("node.key"),
		GatewayCert: in("gateway.pem"), GatewayKey: in("gateway.key"), GossipKeys: in("gossip.json"), Access: in("access.yaml"),
		Admin: in("admin.token")}, nil
}

// secrets makes them where they are not there yet. The token is written last: where it is, all are.
func secrets(dir string) (Secrets, error) {
	s, err := At(dir)
	if err != nil {
		return s, err
	}
	if _, err := os.Stat(s.Admin); err == nil {
		return s, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("look for secrets: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.Admin), 0o700); err != nil {
		return s, fmt.Errorf("create folder of secrets: %w", err)
	}
	now := time.Now()
	authority, err := mtls.NewAuthority("local cluster", now, certLife)
	if err != nil {
		return s, err
	}
	files := map[string][]byte{s.Authority: authority.Cert, s.AuthorityKey: authority.Key}
	if files[s.NodeCert], files[s.NodeKey], err = issue(authority, now, mtls.RoleNode); err != nil {
		return s, err
	}
	if files[s.GatewayCert], files[s.GatewayKey], err = issue(authority, now, mtls.RoleGateway, "127.0.0.1", "localhost"); err != nil {
		return s, err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return s, fmt.Errorf("make gossip key: %w", err)
	}
	if files[s.GossipKeys], err = json.Marshal([]string{base64.StdEncoding.EncodeToString(key)}); err != nil {
		return s, fmt.Errorf("encode gossip key: %w", err)
	}
	token, entry, err := access.NewToken("admin", time.Time{}, []access.EntryRule{{Allow: []string{"get", "put", "delete", "admin"}}})
	if err != nil {
		return s, err
	}
	if files[s.Access], err = access.Append(nil, entry); err != nil {
		return s, err
	}
	for path, b := range files {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return s, fmt.Errorf("write secrets: %w", err)
		}
	}
	if err := os.WriteFile(s.Admin, []byte(token+"\n"), 0o600); err != nil {
		return s, fmt.Errorf("write secrets: %w", err)
	}
	return s, nil
}

func issue(authority mtls.Pair, now time.Time, hosts ...string) (cert, key []byte, err error) {
	p, err := mtls.Issue(authority, hosts[0], hosts, now, certLife)
	return p.Cert, p.Key, err
}

// client reaches the gateways with the token of the one who may do everything.
func (s Secrets) client() (*http.Client, error) {
	authority, err := os.ReadFile(s.Authority)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	token, err := os.ReadFile(s.Admin)
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	return &http.Client{Timeout: 2 * time.Second, Transport: bearer{token: strings.TrimSpace(string(token)),
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}}}}, nil
}

// bearer sends a token with each request over TLS.
type bearer struct {
	*http.Transport
	token string
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.Transport.RoundTrip(r)
}

// nodeArgs and gatewayArgs name the files on the command lines.
func (s Secrets) nodeArgs() []string {
	return []string{"--tls-cert", s.NodeCert, "--tls-key", s.NodeKey, "--tls-ca", s.Authority, "--gossip-key-file", s.GossipKeys}
}

func (s Secrets) gatewayArgs() []string {
	return []string{"--tls-cert", s.GatewayCert, "--tls-key", s.GatewayKey, "--tls-ca", s.Authority, "--access-file", s.Access}
}
