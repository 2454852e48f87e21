// Package target reaches each store that can be loaded in the same way: one connection per worker, one request at a time,
// and no more work than the protocol needs, so that the generator takes little of a machine it shares with the servers.
package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Outcome is how an operation ended.
type Outcome uint8

const (
	// OK: done.
	OK Outcome = iota
	// Absent: a get found nothing. It counts as done.
	Absent
	// Conflict: a get found several values. It counts as done.
	Conflict
	// Refused: the store said that it has too much to do (429), and did nothing.
	Refused
	// Failed: an error, a deadline that passed, or a connection that broke.
	Failed
	// Outcomes is how many there are.
	Outcomes
)

// String is the outcome's name in reports.
func (o Outcome) String() string {
	return [...]string{"ok", "absent", "conflict", "refused", "failed"}[o]
}

// Done says whether the store did what it was asked.
func (o Outcome) Done() bool { return o <= Conflict }

// Conn is one worker's connection. A broken one is dialled again by the next operation. Not safe for concurrent use.
//
// The operations end at the deadline given with them, or earlier when the context given to Dial ends. The error is nil
// exactly where the outcome is not Failed.
type Conn interface {
	// Get reads a key. seen is what the store wants to be shown with a write that follows this read, nil where it has
	// no such thing; it is valid until the next call. The value is received and dropped.
	Get(key []byte, deadline time.Time) (seen []byte, out Outcome, err error)
	// Put writes a key. With seen, it replaces what that read showed.
	Put(key, value, seen []byte, deadline time.Time) (Outcome, error)
	// Close ends the connection.
	Close() error
}

// Target is a store. Safe for concurrent use.
type Target interface {
	// Name is the kind, one of Kinds.
	Name() string
	// Dial opens the connection of one worker, numbered from 0; several addresses are dealt out in turn.
	Dial(ctx context.Context, worker int) (Conn, error)
	// Close releases what connections share. They must have been closed.
	Close() error
}

// Config says what to reach.
type Config struct {
	// Kind is one of Kinds.
	Kind string
	// Addresses, host:port, at least one.
	Addresses []string
	// Bucket is Riak's bucket.
	Bucket string
	// Query is added to every URL of dotring-http as it stands: "r=1&w=3".
	Query string
	// DialTimeout bounds each attempt to connect; 0 is 5 s.
	DialTimeout time.Duration
}

// Kinds of store.
const (
	DotringHTTP = "dotring-http"
	DotringGRPC = "dotring-grpc"
	EtcdJSON    = "etcd-json"
	RiakHTTP    = "riak-http"
	Redis       = "redis"
)

// Kinds lists all kinds.
func Kinds() []string { return []string{DotringHTTP, DotringGRPC, EtcdJSON, RiakHTTP, Redis} }

var (
	// ErrProtocol means that a store said what its protocol does not allow, or what this client does not know.
	ErrProtocol = errors.New("protocol error")
	// ErrAnswer means that a store answered with an error.
	ErrAnswer = errors.New("error answer")
)

// New prepares a target. It connects to nothing.
func New(cfg Config) (Target, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("target: no address given")
	}
	for _, a := range cfg.Addresses {
		_, port, err := net.SplitHostPort(a)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return nil, fmt.Errorf("target: address %q is not host:port: %w", a, err)
		}
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = 5 * time.Second
	}
	if strings.ContainsAny(cfg.Query+cfg.Bucket, " \r\n?#") {
		return nil, errors.New("target: a query or bucket may hold no space, line break, ? or #")
	}
	switch cfg.Kind {
	case DotringHTTP:
		return httpTarget{cfg, func(h *httpConn) Conn { return newDotring(h, cfg.Query) }}, nil
	case EtcdJSON:
		return httpTarget{cfg, func(h *httpConn) Conn { return &etcdConn{http: h} }}, nil
	case RiakHTTP:
		return httpTarget{cfg, func(h *httpConn) Conn { return newRiak(h, cfg.Bucket) }}, nil
	case Redis:
		return redisTarget{cfg}, nil
	case DotringGRPC:
		return newGRPC(cfg), nil
	}
	known := Kinds()
	slices.Sort(known)
	return nil, fmt.Errorf("target: kind %q is not known; known are %s", cfg.Kind, strings.Join(known, ", "))
}

// httpTarget is a store with an HTTP API.
type httpTarget struct {
	cfg  Config
	wrap func(*httpConn) Conn
}

func (t httpTarget) Name() string { return t.cfg.Kind }

func (t httpTarget) Dial(ctx context.Context, worker int) (Conn, error) {
	h := &httpConn{line: newLine(ctx, t.cfg.Addresses[worker%len(t.cfg.Addresses)], t.cfg.DialTimeout)}
	if err := h.line.connect(); err != nil {
		return nil, err
	}
	return t.wrap(h), nil
}

func (httpTarget) Close() error { return nil }
