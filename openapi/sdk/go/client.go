// Package dotring is the client of Dotring's HTTP API: keys and values over any of several gateways, with contexts that
// carry themselves. The types and calls for batches and the cluster are generated, in the package api.
package dotring

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dotring/dotring/openapi/sdk/go/api"
)

const (
	// maxAnswer is more than the largest record, 3 MiB, in base64.
	maxAnswer = 8 << 20
	// MaxSessionKeys is how many keys a session remembers the contexts of, each at most 3 KiB.
	MaxSessionKeys = 10_000
)

var (
	// ErrNoValue says that a key was never written, or is deleted.
	ErrNoValue = errors.New("no value")
	// ErrSessionFull says that a session knows MaxSessionKeys keys already. Nothing was sent: to forget a context would let
	// a later write replace what was never seen.
	ErrSessionFull = errors.New("the session remembers as many keys as it may: begin another")
)

// Value is a value as it was stored. Context is what was seen of its key.
type Value struct {
	Data        []byte
	ContentType string // empty in a write is application/octet-stream
	ETag        string // quoted; empty for a merged value
	Context     string
}

// Conflict is the error of a read that found siblings, which concurrent writes made, and of which some may be deletions. A
// write with its context, as the next one of the same session has, replaces them all.
type Conflict struct {
	Siblings []api.Sibling
	Context  string
}

func (c *Conflict) Error() string { return fmt.Sprintf("conflict: %d siblings", len(c.Siblings)) }

// Error is a request that failed. Unwrap returns what the transport said, where no answer came.
type Error struct {
	Status  int         // 0 where no answer came
	Problem api.Problem // zero where the answer was none
	// Outcome is NotApplied or InDoubt for a write, with all its attempts in mind, and empty for a read.
	Outcome string
	cause   error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("status %d: %s: %s", e.Status, e.Problem.Title, e.Problem.Detail)
	if e.Status == 0 {
		text = e.cause.Error()
	}
	if e.Outcome != "" {
		text += " (" + e.Outcome + ")"
	}
	return text
}

func (e *Error) Unwrap() error { return e.cause }

// Options are all optional.
type Options struct {
	// Token is sent as a bearer token.
	Token string
	// ReadQuorum and WriteQuorum are sent as r and w: a number, "one", "quorum" or "all".
	ReadQuorum, WriteQuorum string
	// Resolve merges siblings into the value that a read returns, instead of a Conflict. Nothing is written by that: the
	// session's next write of the key replaces what was merged. It may be called concurrently.
	Resolve func(key string, siblings []api.Sibling) (Value, error)
	// CacheBytes bounds the cache of values; 0 has none. Each use of it is revalidated by ETag.
	CacheBytes int
	// Attempts is how often a request is tried at most, 4 by default.
	Attempts int
	// HTTP is the client to send with; by default one whose requests end after 65 s, as the longest the gateway may take.
	HTTP *http.Client
}

// Client speaks to several gateways that lead to one cluster. Safe for concurrent use.
type Client struct {
	gateways []string
	opts     Options
	cache    *cache
}

// New returns a client of at least one gateway, given as http or https URLs.
func New(gateways []string, opts Options) (*Client, error) {
	if len(gateways) == 0 {
		return nil, errors.New("no gateway is named")
	}
	gateways = slices.Clone(gateways)
	for i, g := range gateways {
		u, err := url.Parse(g)
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("gateway %q is no http or https URL", g)
		}
		gateways[i] = strings.TrimRight(g, "/")
	}
	if opts.Attempts <= 0 {
		opts.Attempts = 4
	}
	if opts.HTTP == nil {
		opts.HTTP = &http.Client{Timeout: 65 * time.Second}
	}
	return &Client{gateways: gateways, opts: opts, cache: newCache(opts.CacheBytes)}, nil
}

// API returns the generated client of the ith gateway, for batches and the cluster. It has no retries.
func (c *Client) API(i int) (*api.ClientWithResponses, error) {
	return api.NewClientWithResponses(c.gateways[i], api.WithHTTPClient(c.opts.HTTP), api.WithRequestEditorFn(
		func(_ context.Context, r *http.Request) error { c.authorize(r); return nil }))
}

// Session returns a new session: one flow of work, such as a user's request.
func (c *Client) Session() *Session { return &Session{client: c, contexts: map[string]string{}} }

// Session remembers the context of each key it reads and writes, and sends it: its writes replace exactly what it has seen,
// and its reads never show less than that. Safe for concurrent use, but work that must not be taken for having seen what
// other work saw needs a session of its own.
type Session struct {
	client   *Client
	mu       sync.Mutex
	contexts map[string]string
}

// reserve returns a key's context, and keeps room for it.
func (s *Session) reserve(key string) (string, error) {
	if key == "" {
		return "", errors.New("the key is empty")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, known := s.contexts[key]
	if !known && len(s.contexts) >= MaxSessionKeys {
		return "", ErrSessionFull
	}
	s.contexts[key] = token
	return token, nil
}

func (s *Session) remember(key, token string) {
	if token == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contexts[key] = token
}

// Get reads a key. Errors are ErrNoValue, *Conflict without Options.Resolve, and *Error. The value's data is the caller's,
// unless there is a cache, with which it must not be modified.
func (s *Session) Get(ctx context.Context, key string) (Value, error) {
	c := s.client
	seen, err := s.reserve(key)
	if err != nil {
		return Value{}, err
	}
	h := http.Header{}
	cached, ok := c.cache.get(key)
	if ok {
		h.Set("If-None-Match", cached.ETag)
	}
	rep, err := c.send(ctx, http.MethodGet, key, seen, h, nil)
	if err != nil {
		return Value{}, err
	}
	token := rep.header.Get("Kv-Context")
	s.remember(key, token)
	switch rep.status {
	case http.StatusNotModified:
		cached.Context = token
		return cached, nil
	case http.StatusOK:
		v := Value{Data: rep.body, ContentType: rep.header.Get("Content-Type"), ETag: rep.header.Get("ETag"), Context: token}
		c.cache.put(key, v)
		return v, nil
	case http.StatusNotFound:
		c.cache.put(key, Value{})
		return Value{}, ErrNoValue
	}
	c.cache.put(key, Value{})
	var body api.Siblings
	if err := json.Unmarshal(rep.body, &body); err != nil {
		return Value{}, fmt.Errorf("read siblings: %w", err)
	}
	if c.opts.Resolve == nil {
		return Value{}, &Conflict{Siblings: body.Siblings, Context: token}
	}
	v, err := c.opts.Resolve(key, body.Siblings)
	v.ETag, v.Context = "", token
	return v, err
}

// Put writes a value in place of all that the session has seen of the key. Errors are ErrSessionFull and *Error.
func (s *Session) Put(ctx context.Context, key string, v Value) (api.Written, error) {
	h := http.Header{}
	if v.ContentType != "" {
		h.Set("Content-Type", v.ContentType)
	}
	return s.write(ctx, http.MethodPut, key, h, v.Data)
}

// Delete deletes all that the session has seen of the key. Deleting what is not there is no error.
func (s *Session) Delete(ctx context.Context, key string) (api.Written, error) {
	return s.write(ctx, http.MethodDelete, key, http.Header{}, nil)
}

func (s *Session) write(ctx context.Context, method, key string, h http.Header, body []byte) (w api.Written, err error) {
	seen, err := s.reserve(key)
	if err != nil {
		return w, err
	}
	rep, err := s.client.send(ctx, method, key, seen, h, body)
	if err != nil {
		return w, err
	}
	s.remember(key, rep.header.Get("Kv-Context"))
	if err := json.Unmarshal(rep.body, &w); err != nil {
		return w, fmt.Errorf("read answer: %w", err)
	}
	return w, nil
}

// Text is a value of text.
func Text(s string) Value { return Value{Data: []byte(s), ContentType: "text/plain; charset=utf-8"} }

// reply is an answer, whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// send sends a request under one request id until it is answered, or trying again is of no use. A reply is a success, a
// 300, a 304 or a key's 404.
func (c *Client) send(ctx context.Context, method, key, seen string, h http.Header, body []byte) (reply, error) {
	h.Set("Kv-Request-Id", rand.Text())
	if seen != "" {
		h.Set("Kv-Context", seen)
	}
	write := method != http.MethodGet
	order, doubt := Order(c.gateways, key), false
	for n := 1; ; n++ {
		rep, failure, a := c.once(ctx, method, order[(n-1)%len(order)], key, h, body)
		if failure == nil {
			return rep, nil
		}
		if write {
			// What an earlier attempt may have done stays in doubt, whatever becomes of later ones.
			doubt = doubt || a.doubtful()
			if failure.Outcome = NotApplied; doubt {
				failure.Outcome = InDoubt
			}
		}
		wait, again := a.again(n, c.opts.Attempts, len(order), write, mathrand.Float64())
		if deadline, ok := ctx.Deadline(); !again || ctx.Err() != nil || ok && time.Until(deadline) < wait {
			return reply{}, failure
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return reply{}, failure
		}
	}
}

// once sends one request to one gateway.
func (c *Client) once(ctx context.Context, method, gateway, key string, h http.Header, body []byte) (reply, *Error, attempt) {
	req, err := c.request(ctx, method, gateway, key, h, body)
	if err != nil {
		return reply{}, &Error{cause: err}, attempt{}
	}
	resp, err := c.opts.HTTP.Do(req)
	if err != nil {
		var op *net.OpError
		unsent := errors.As(err, &op) && op.Op == "dial"
		return reply{}, &Error{cause: err}, attempt{sent: !unsent}
	}
	rep := reply{status: resp.StatusCode, header: resp.Header}
	rep.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err = errors.Join(err, resp.Body.Close()); err == nil && len(rep.body) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	if err != nil {
		return reply{}, &Error{cause: err}, attempt{sent: true}
	}
	missing := rep.status == http.StatusNotFound && method == http.MethodGet && rep.header.Get("Kv-Context") != ""
	if rep.status == http.StatusOK || rep.status == http.StatusMultipleChoices || rep.status == http.StatusNotModified || missing {
		return rep, nil, attempt{}
	}
	failure := &Error{Status: rep.status}
	if err := json.Unmarshal(rep.body, &failure.Problem); err != nil {
		failure.Problem = api.Problem{Title: "not a problem", Detail: string(rep.body[:min(len(rep.body), 200)])}
	}
	a := attempt{status: rep.status, sent: true, retryAfter: parseRetryAfter(rep.header)}
	if o := failure.Problem.Outcome; o != nil {
		a.outcome = string(*o)
	}
	return reply{}, failure, a
}

func (c *Client) request(ctx context.Context, method, gateway, key string, h http.Header, body []byte) (*http.Request, error) {
	var r io.Reader
	if method == http.MethodPut {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, gateway, r)
	if err != nil {
		return nil, err
	}
	req.URL.RawPath = req.URL.EscapedPath() + "/v1/kv/" + Escape(key) // dot segments stay as they are
	req.URL.Path += "/v1/kv/" + key
	name, value := "w", c.opts.WriteQuorum
	if method == http.MethodGet {
		name, value = "r", c.opts.ReadQuorum
	}
	if value != "" {
		req.URL.RawQuery = url.Values{name: {value}}.Encode()
	}
	req.Header = h.Clone()
	c.authorize(req)
	return req, nil
}

func (c *Client) authorize(r *http.Request) {
	if c.opts.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.opts.Token)
	}
}
