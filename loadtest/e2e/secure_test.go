package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/loadtest/localcluster"
	"github.com/dotring/dotring/openapi"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/mtls"
)

// secured is a secure cluster and what it takes to talk to it.
type secured struct {
	*localcluster.Cluster
	t         *testing.T
	files     localcluster.Secrets
	authority mtls.Pair
}

func startSecure(t *testing.T) *secured {
	t.Helper()
	cfg := localcluster.Config{Nodes: 3, Gateways: 2, Secure: true, Data: t.TempDir()}
	s := &secured{Cluster: start(t, cfg), t: t}
	var err error
	if s.files, err = localcluster.At(cfg.Data); err != nil {
		t.Fatal(err)
	}
	s.authority = mtls.Pair{Cert: s.read(s.files.Authority), Key: s.read(s.files.AuthorityKey)}
	return s
}

func (s *secured) read(path string) []byte {
	s.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *secured) write(path string, b []byte) {
	s.t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// token adds a token to the gateways' rules, and waits until both know it.
func (s *secured) token(name string, rules ...access.EntryRule) string {
	s.t.Helper()
	token, entry, err := access.NewToken(name, time.Time{}, rules)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := access.Append(s.read(s.files.Access), entry)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.files.Access, text)
	for _, g := range s.Gateways {
		eventually(s.t, s.Cluster, func() error {
			code, _, err := s.ask(g, http.MethodGet, "/v1/kv/anything", token, "")
			if err == nil && code == http.StatusUnauthorized {
				return errors.New("the token is not known yet")
			}
			return err
		})
	}
	return token
}

// trust is a TLS configuration that trusts the cluster's authority alone.
func (s *secured) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.authority.Cert)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// certificate is one of the cluster's authority.
func (s *secured) certificate(hosts ...string) tls.Certificate {
	s.t.Helper()
	p, err := mtls.Issue(s.authority, "test", hosts, time.Now(), time.Hour)
	if err != nil {
		s.t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	return cert
}

// ask sends one request over a connection of its own.
func (s *secured) ask(g *localcluster.Process, method, path, token, body string) (int, []byte, error) {
	return get(s.trust(), method, s.URL(g)+path, token, body)
}

func get(config *tls.Config, method, url, token, body string) (code int, text []byte, err error) {
	tr := &http.Transport{TLSClientConfig: config.Clone(), DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Transport: tr, Timeout: generous}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	text, err = io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// Who is not of the cluster gets nowhere, and a client with a certificate gets no further than the gateways.
func TestSecureConnections(t *testing.T) {
	s := startSecure(t)
	admin := strings.TrimSpace(string(s.read(s.files.Admin)))
	g := s.Gateways[0]
	if code, body, err := s.ask(g, "PUT", "/v1/kv/k", admin, "v"); err != nil || code != 200 {
		t.Fatalf("put: %d %s, %v", code, body, err)
	}
	if code, body, err := s.ask(s.Gateways[1], "GET", "/v1/kv/k", admin, ""); err != nil || code != 200 || string(body) != "v" {
		t.Fatalf("get: %d %q, %v", code, body, err)
	}
	if code, body, err := get(nil, "GET", "http://"+g.HTTP+"/v1/kv/k", admin, ""); err == nil && code != http.StatusBadRequest {
		t.Errorf("in the clear: %d %q", code, body)
	}
	old := s.trust()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, _, err := get(old, "GET", s.URL(g)+"/healthz", "", ""); err == nil {
		t.Error("TLS 1.2 is accepted")
	}
	if _, _, err := get(&tls.Config{RootCAs: x509.NewCertPool()}, "GET", s.URL(g)+"/healthz", "", ""); err == nil {
		t.Error("a client of another authority trusts the gateway")
	}
	foreign, err := mtls.NewAuthority("foreign", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stranger := &secured{t: t, authority: foreign}
	config := func(certs ...tls.Certificate) credentials.TransportCredentials {
		c := s.trust()
		c.InsecureSkipVerify = true // nodes have no addresses in their certificates; it is they who are to refuse
		c.Certificates = certs
		return credentials.NewTLS(c)
	}
	expired, err := mtls.Issue(s.authority, "late", []string{mtls.RoleNode}, time.Now().Add(-2*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	late, err := tls.X509KeyPair(expired.Cert, expired.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		creds   credentials.TransportCredentials
		node    bool
		gateway bool
	}{
		{"in the clear", insecure.NewCredentials(), false, false},
		{"no certificate", config(), false, false},
		{"certificate of a client", config(s.certificate("client")), false, true},
		{"certificate of a gateway", config(s.certificate(mtls.RoleGateway)), true, true},
		{"certificate of another authority", config(stranger.certificate(mtls.RoleNode)), false, false},
		{"expired certificate", config(late), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := call(t, s.Nodes[0].GRPC, tc.creds, func(ctx context.Context, cc *grpc.ClientConn) error {
				_, err := storagev1.NewStorageClient(cc).GetNode(ctx, &storagev1.GetNodeRequest{})
				return err
			})
			if (err == nil) != tc.node {
				t.Errorf("node: %v", err)
			}
			err = call(t, g.GRPC, tc.creds, func(ctx context.Context, cc *grpc.ClientConn) error {
				_, err := kvv1.NewKVClient(cc).Get(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+admin), &kvv1.GetRequest{Key: []byte("k")})
				return err
			})
			if (err == nil) != tc.gateway {
				t.Errorf("gateway: %v", err)
			}
		})
	}
}

func call(t *testing.T, addr string, creds credentials.TransportCredentials, do func(context.Context, *grpc.ClientConn) error) error {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), generous)
	defer cancel()
	return do(ctx, cc)
}

// A token for user/ alone is of no use for anything else, whatever the way: every operation of the HTTP document, every
// method of both services.
func TestLimitedToken(t *testing.T) {
	s := startSecure(t)
	limited := s.token("limited", access.EntryRule{Prefix: "user/", Allow: []string{"get", "put", "delete"}})
	g := s.Gateways[0]
	for _, method := range []string{"PUT", "GET", "DELETE"} {
		if code, body, err := s.ask(g, method, "/v1/kv/user/1", limited, "v"); err != nil || code != 200 {
			t.Errorf("%s user/1: %d %s, %v", method, code, body, err)
		}
	}
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document)
	if err != nil {
		t.Fatal(err)
	}
	// What tells nothing of the cluster and its keys.
	open := map[string]bool{"/healthz": true, "/readyz": true, "/openapi.yaml": true, "/docs": true, "/ui": true, "/ui/": true, "/ui/{file}": true}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			target, body := strings.NewReplacer("{key}", "other", "{name}", "node1").Replace(path), ""
			if strings.Contains(path, ":batch") {
				body = `{"items":[{"key":"other"}]}`
			}
			code, _, err := s.ask(g, method, target, "", body)
			if want := http.StatusUnauthorized; err != nil || !open[path] && code != want || open[path] && code == want {
				t.Errorf("%s %s without a token: %d, %v", method, target, code, err)
			}
			code, text, err := s.ask(g, method, target, limited, body)
			if body != "" {
				var batch struct{ Results []struct{ Status int } }
				if err == nil {
					err = json.Unmarshal(text, &batch)
				}
				if err != nil || len(batch.Results) != 1 || batch.Results[0].Status != http.StatusForbidden {
					t.Errorf("%s %s: %d %s, %v", method, target, code, text, err)
				}
				continue
			}
			if want := http.StatusForbidden; err != nil || !open[path] && code != want || open[path] && code == want {
				t.Errorf("%s %s: %d, %v", method, target, code, err)
			}
		}
	}
	creds := s.trust()
	creds.Certificates = []tls.Certificate{s.certificate("client")}
	err = call(t, g.GRPC, credentials.NewTLS(creds), func(ctx context.Context, cc *grpc.ClientConn) error {
		for _, service := range []protoreflect.ServiceDescriptor{kvv1.File_kv_v1_kv_proto.Services().Get(0), clusterv1.File_cluster_v1_cluster_proto.Services().Get(0)} {
			for i := range service.Methods().Len() {
				everyMethod(ctx, t, cc, service.Methods().Get(i), limited)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// everyMethod calls one method for the key "other", without a token and with a limited one.
func everyMethod(ctx context.Context, t *testing.T, cc *grpc.ClientConn, m protoreflect.MethodDescriptor, token string) {
	t.Helper()
	name := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	req, res := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if f := m.Input().Fields().ByName("key"); f != nil && f.Kind() == protoreflect.BytesKind {
		req.Set(f, protoreflect.ValueOfBytes([]byte("other")))
	} else if f != nil {
		req.Set(f, protoreflect.ValueOfString("other"))
	}
	items := m.Input().Fields().ByName("items")
	if items != nil {
		item := req.Mutable(items).List().AppendMutable().Message()
		item.Set(items.Message().Fields().ByName("key"), protoreflect.ValueOfString("other"))
	}
	if err := cc.Invoke(ctx, name, req, res); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%s without a token: %v", name, err)
	}
	err := cc.Invoke(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), name, req, res)
	if items != nil && err == nil {
		b, merr := proto.Marshal(res)
		if merr != nil || !bytes.Contains(b, []byte("/problems/denied")) {
			t.Errorf("%s: %v, %v", name, res, merr)
		}
		return
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("%s: %v", name, err)
	}
}

// The authority is changed under load, step by step, and no request fails; who has the old one alone is refused after it.
func TestRotationUnderLoad(t *testing.T) {
	s := startSecure(t)
	admin := strings.TrimSpace(string(s.read(s.files.Admin)))
	before := s.authority
	next, err := mtls.NewAuthority("next", time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	both := s.trust()
	both.RootCAs.AppendCertsFromPEM(next.Cert)
	var done atomic.Bool
	var requests atomic.Int64
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() {
			for i := 0; !done.Load(); i++ {
				method, body := "PUT", "v"
				if i%2 == 1 {
					method, body = "GET", ""
				}
				code, text, err := get(both, method, fmt.Sprintf("%s/v1/kv/k%d?%s", s.URL(s.Gateways[i%2]), w, patience), admin, body)
				if err != nil || code != 200 {
					t.Errorf("request %d of %d: %d %s, %v", i, w, code, text, err)
				}
				requests.Add(1)
			}
		})
	}
	pass := func(n int64) {
		t.Helper()
		from, until := requests.Load(), time.Now().Add(3*time.Second) // files are looked at once a second
		eventually(t, s.Cluster, func() error {
			if got := requests.Load() - from; got < n || time.Now().Before(until) {
				return fmt.Errorf("%d requests", got)
			}
			return nil
		})
	}
	pass(50)
	s.write(s.files.Authority, append(append([]byte(nil), before.Cert...), next.Cert...))
	pass(50)
	for _, c := range []struct {
		cert, key string
		hosts     []string
	}{{s.files.NodeCert, s.files.NodeKey, []string{mtls.RoleNode}}, {s.files.GatewayCert, s.files.GatewayKey, []string{mtls.RoleGateway, "127.0.0.1"}}} {
		p, err := mtls.Issue(next, "next", c.hosts, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		s.write(c.key, p.Key)
		s.write(c.cert, p.Cert)
	}
	pass(50)
	s.write(s.files.Authority, next.Cert)
	pass(50)
	// A node and a gateway that start now meet the others on new connections.
	done.Store(true)
	load.Wait()
	for _, p := range []*localcluster.Process{s.Nodes[0], s.Gateways[1]} {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
	}
	s.authority = next
	eventually(t, s.Cluster, func() error {
		code, text, err := s.ask(s.Gateways[1], "GET", "/v1/kv/k0?r=3", admin, "")
		if err == nil && code != 200 {
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
	s.authority = before
	if code, _, err := s.ask(s.Gateways[0], "GET", "/healthz", "", ""); err == nil {
		t.Errorf("the old authority still vouches for the gateway: %d", code)
	}
	old := s.certificate(mtls.RoleNode)
	config := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{old}}
	if err := call(t, s.Nodes[1].GRPC, credentials.NewTLS(config), func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := storagev1.NewStorageClient(cc).GetNode(ctx, &storagev1.GetNodeRequest{})
		return err
	}); err == nil {
		t.Error("a certificate of the old authority is accepted")
	}
	t.Logf("%d requests while certificates changed", requests.Load())
}
