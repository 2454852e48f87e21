package ctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// serverTimeout is what a gateway gives a request that names no timeout.
	serverTimeout = 2 * time.Second
	// slack is how much longer than the cluster's time an answer is waited for, so that the gateway's own account of a
	// request that took too long still arrives.
	slack = 5 * time.Second
	// maxBody is the size of the largest body that is sent or taken, in bytes.
	maxBody = 64 << 20
	// askFirst is the size from which the gateway is asked whether it takes a body before it is sent, in bytes.
	askFirst = 1 << 20
)

// client sends requests to one gateway, each once, over a connection of its own.
type client struct {
	base    *url.URL // without a slash at its end
	http    *http.Client
	timeout time.Duration // for the cluster; 0 is the gateway's default
	agent   string
	token   string // empty: none is sent
}

// tls sets whom the client trusts; nil for whom the system trusts.
func (c *client) tls(config *tls.Config) {
	if t, ok := c.http.Transport.(*http.Transport); ok {
		t.TLSClientConfig = config
	}
}

func newClient(base *url.URL, timeout time.Duration, version string) *client {
	return &client{base: base, timeout: timeout, agent: "dotringctl/" + version, http: &http.Client{
		// A redirect is an answer like any other: a write is never sent to where the user did not send it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableCompression: true, DisableKeepAlives: true,
			DialContext:         (&net.Dialer{Timeout: slack}).DialContext,
			TLSHandshakeTimeout: slack, ExpectContinueTimeout: time.Second},
	}}
}

// parseGateway reads the URL of a gateway; host:port alone is http.
func parseGateway(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the text, which may hold a password
		}
		return nil, fmt.Errorf("--gateway is no URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("--gateway must begin with http:// or https://, not %s://", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("--gateway names no host, as http://127.0.0.1:8080 does")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("--gateway takes no query and no fragment")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// call is one request.
type call struct {
	method string
	path   string // escaped
	query  url.Values
	header http.Header
	body   []byte        // nil for none
	wait   time.Duration // for the answer; 0 is what follows from the timeout
}

// answer is a whole answer of the gateway.
type answer struct {
	status int
	header http.Header
	body   []byte
	// certificateEnds is when the gateway's certificate ends; zero without one.
	certificateEnds time.Time
}

// connError is the error of a request without an answer.
type connError struct {
	url  string // of the gateway, without its password
	sent bool   // the gateway may have got the request
	err  error
}

func (e *connError) Error() string { return fmt.Sprintf("%s: %v", e.url, e.err) }
func (e *connError) Unwrap() error { return e.err }

// do sends one request and reads the whole answer, whatever its status. Its errors are *connError.
func (c *client) do(ctx context.Context, q call) (answer, error) {
	wait := slack + c.timeout
	if c.timeout == 0 {
		wait = slack + serverTimeout
	}
	if q.wait > 0 {
		wait = q.wait
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	fail := func(err error) (answer, error) {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", wait)
		}
		return answer{}, &connError{url: c.base.Redacted(), sent: sent.Load(), err: err}
	}
	r, err := c.request(ctx, q)
	if err != nil {
		return fail(err)
	}
	res, err := c.http.Do(r)
	if err != nil {
		return fail(err)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return fail(fmt.Errorf("the answer was cut short: %w", err))
	}
	if len(b) > maxBody {
		return fail(fmt.Errorf("the answer has more than %d bytes", maxBody))
	}
	out := answer{status: res.StatusCode, header: res.Header, body: b}
	if res.TLS != nil && len(res.TLS.PeerCertificates) > 0 {
		out.certificateEnds = res.TLS.PeerCertificates[0].NotAfter
	}
	return out, nil
}

// request makes the request of a call.
func (c *client) request(ctx context.Context, q call) (*http.Request, error) {
	target := c.base.String() + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	var body io.Reader
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, target, body)
	if err != nil {
		return nil, err
	}
	for name, values := range q.header {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if len(q.body) > askFirst {
		// A gateway that will not have it says so before it is sent, and the answer does not drown in a broken connection.
		r.Header.Set("Expect", "100-continue")
	}
	return r, nil
}

// keepAlive uses connections again, for commands that send many requests.
func (c *client) keepAlive() {
	if t, ok := c.http.Transport.(*http.Transport); ok {
		t.DisableKeepAlives, t.MaxIdleConnsPerHost = false, bulkAtOnce
	}
}

// openIdle is how long a body that is read as it comes may bring nothing.
const openIdle = time.Minute

// idleBody is a body that is given up when it brings nothing for openIdle.
type idleBody struct {
	io.ReadCloser
	idle   *time.Timer
	cancel context.CancelFunc
}

func (b *idleBody) Read(p []byte) (int, error) {
	b.idle.Reset(openIdle)
	return b.ReadCloser.Read(p)
}

func (b *idleBody) Close() error {
	b.idle.Stop()
	b.cancel()
	return b.ReadCloser.Close()
}

// open sends one request and returns the body of its answer to be read as it comes, for as long as it comes. Errors are
// those of failed and refused.
func (c *client) open(ctx context.Context, q call) (_ io.ReadCloser, err error) {
	ctx, cancel := context.WithCancel(ctx)
	idle := time.AfterFunc(openIdle, cancel)
	defer func() {
		if err != nil {
			idle.Stop()
			cancel()
		}
	}()
	r, err := c.request(ctx, q)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(r)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, failed(&connError{url: c.base.Redacted(), err: err}, "")
	}
	if res.StatusCode == http.StatusOK {
		return &idleBody{res.Body, idle, cancel}, nil
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	return nil, refused(answer{status: res.StatusCode, header: res.Header, body: b}, "")
}

// keyPath returns the escaped path of key under prefix, as one segment: every byte survives, whatever is on the way.
func keyPath(prefix string, key []byte) string {
	const digits = "0123456789ABCDEF"
	// "." and ".." are folded by what thinks it knows paths.
	dots := string(key) == "." || string(key) == ".."
	b := make([]byte, 0, len(prefix)+3*len(key))
	b = append(b, prefix...)
	for _, c := range key {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '~', c == '.' && !dots:
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}
