// Package mtls is the TLS 1.3 that gateways and storage nodes speak, with certificates on both sides that are read again
// when their files change.
package mtls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// A certificate of the cluster's authority says by a DNS name what its holder may be taken for. A client of the gateways
// that has a certificate can so not talk to storage nodes past the gateways' access rules. The names resolve nowhere:
// addresses change, and say nothing of who holds them.
const (
	RoleNode    = "storagenode.dotring.internal"
	RoleGateway = "gateway.dotring.internal"
)

// recheck is how often, at most, the files are looked at: when a connection is made.
const recheck = time.Second

var (
	// ErrIncomplete says that some of the three files are named and others are not.
	ErrIncomplete = errors.New("--tls-cert, --tls-key and --tls-ca belong together: give all three, or none")
	// ErrPeer wraps why a peer's certificate was refused.
	ErrPeer = errors.New("certificate refused")
)

// Files names PEM files: a certificate with its chain, its private key, and the authorities that others' certificates
// must come from. All or none are set.
type Files struct {
	Cert, Key, CA string
}

// Any says whether TLS is asked for.
func (f Files) Any() bool { return f != Files{} }

// Validate says whether all files are named, or none. It does not read them.
func (f Files) Validate() error {
	if f.Any() && (f.Cert == "" || f.Key == "" || f.CA == "") {
		return ErrIncomplete
	}
	return nil
}

// Source holds what the files say. It looks at them again when connections are made, at most once a second; files that
// cannot be used leave the last good ones in force. It is safe for concurrent use and has no goroutine.
type Source struct {
	files Files
	log   zerolog.Logger
	now   func() time.Time

	mu      sync.Mutex
	cur     *material
	checked time.Time
	seen    [3]stamp // of the files when they were last read, usable or not
	lastErr error
}

// material is never changed after it was made.
type material struct {
	cert tls.Certificate
	pool *x509.CertPool
}

// stamp tells one version of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// Load reads the files. now is time.Now in the programs.
func Load(files Files, now func() time.Time, log zerolog.Logger) (*Source, error) {
	if err := files.Validate(); err != nil {
		return nil, err
	}
	if !files.Any() {
		return nil, errors.New("no certificate files are named")
	}
	s := &Source{files: files, log: log, now: now, checked: now(), seen: stamps(files)}
	var err error
	s.cur, err = read(files)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func stamps(f Files) (out [3]stamp) {
	for i, path := range [...]string{f.Cert, f.Key, f.CA} {
		if info, err := os.Stat(path); err == nil {
			out[i] = stamp{modified: info.ModTime(), size: info.Size()}
		}
	}
	return out
}

func read(f Files) (*material, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	authorities, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("authorities: %s holds no certificate", f.CA)
	}
	return &material{cert: cert, pool: pool}, nil
}

// current returns what is in force.
func (s *Source) current() *material {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(s.checked) < recheck {
		return s.cur
	}
	s.checked = now
	seen := stamps(s.files)
	if seen == s.seen && s.lastErr == nil {
		return s.cur
	}
	s.seen = seen
	m, err := read(s.files)
	if err != nil {
		// Files are often replaced one after the other, so that a first failure means little; it is tried again.
		if s.lastErr == nil || s.lastErr.Error() != err.Error() {
			s.log.Error().Err(err).Msg("changed certificate files cannot be used, the last good ones stay in force")
		}
		s.lastErr = err
		return s.cur
	}
	s.lastErr = nil
	if !bytes.Equal(m.cert.Certificate[0], s.cur.cert.Certificate[0]) || !m.pool.Equal(s.cur.pool) {
		s.log.Info().Time("expires", m.cert.Leaf.NotAfter).Msg("certificates changed")
	}
	s.cur = m
	return m
}

// Expires returns when the certificate in force ends.
func (s *Source) Expires() time.Time { return s.current().cert.Leaf.NotAfter }

// base is what both sides share. Resumption is off, so that each connection is judged by the certificates of its time.
func (s *Source) base() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &s.current().cert, nil },
		GetClientCertificate:   func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &s.current().cert, nil },
	}
}

// Server returns the configuration of a server whose clients have certificates for one of roles; any of the authorities'
// certificates where there is no role.
func (s *Source) Server(roles ...string) *tls.Config {
	c := s.base()
	c.ClientAuth = tls.RequireAnyClientCert // VerifyConnection verifies, by the authorities of the moment
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		return s.verify(cs, x509.ExtKeyUsageClientAuth, roles)
	}
	return c
}

// Public returns the configuration of a server that asks its clients for no certificate.
func (s *Source) Public() *tls.Config { return s.base() }

// Client returns the configuration of a client of servers that have a certificate for role.
func (s *Source) Client(role string) *tls.Config {
	c := s.base()
	c.InsecureSkipVerify = true // VerifyConnection verifies, by the authorities of the moment and by role
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		return s.verify(cs, x509.ExtKeyUsageServerAuth, []string{role})
	}
	return c
}

// verify checks a peer's chain, its use, and that it has one of roles.
func (s *Source) verify(cs tls.ConnectionState, use x509.ExtKeyUsage, roles []string) error {
	if len(cs.PeerCertificates) == 0 {
		return fmt.Errorf("%w: there is none", ErrPeer)
	}
	leaf, between := cs.PeerCertificates[0], x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: s.current().pool, Intermediates: between, CurrentTime: s.now(),
		KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if len(roles) == 0 {
		return nil
	}
	for _, role := range roles {
		if leaf.VerifyHostname(role) == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: it is for %q, and not for %q", ErrPeer, leaf.DNSNames, roles)
}
