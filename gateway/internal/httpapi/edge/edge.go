// Package edge holds the rules that the HTTP, gRPC and batch surfaces share: what a good request is, and what a record
// looks like to a client.
package edge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/ring"
)

const (
	// MaxKeyBytes is the length of the longest key.
	MaxKeyBytes = 250
	// MaxRequestID is the length of the longest request id, in characters.
	MaxRequestID = 64
	// MaxContentType is the length of the longest content type, in bytes.
	MaxContentType = 255
	// DefaultContentType is that of a value stored without one.
	DefaultContentType = "application/octet-stream"
	// DefaultTimeout is the time a request has that asks for none; MaxTimeout is the most it may ask for.
	DefaultTimeout = 2 * time.Second
	MaxTimeout     = 60 * time.Second
)

// CheckKey says whether key may name a value: 1 to 250 bytes, any bytes. The error wraps problem.ErrBadKey.
func CheckKey(key []byte) error {
	if len(key) == 0 {
		return fmt.Errorf("%w: it is empty", problem.ErrBadKey)
	}
	if len(key) > MaxKeyBytes {
		return fmt.Errorf("%w: it has %d bytes, the limit is %d", problem.ErrBadKey, len(key), MaxKeyBytes)
	}
	return nil
}

// CheckRequestID says whether id may name a write: 1 to 64 printable ASCII characters. The error wraps
// problem.ErrBadRequestID.
func CheckRequestID(id string) error {
	if id == "" || len(id) > MaxRequestID {
		return fmt.Errorf("%w: it has %d characters, 1 to %d are allowed", problem.ErrBadRequestID, len(id), MaxRequestID)
	}
	for i := range len(id) {
		if id[i] < 0x20 || id[i] > 0x7e {
			return fmt.Errorf("%w: character %d is not printable ASCII", problem.ErrBadRequestID, i+1)
		}
	}
	return nil
}

// CheckContentType says whether t can be stored and given back in a header. The error wraps problem.ErrBadContentType.
func CheckContentType(t string) error {
	if len(t) > MaxContentType {
		return fmt.Errorf("%w: it has %d bytes, the limit is %d", problem.ErrBadContentType, len(t), MaxContentType)
	}
	for i := range len(t) {
		if (t[i] < 0x20 && t[i] != '\t') || t[i] > 0x7e {
			return fmt.Errorf("%w: character %d is not printable ASCII", problem.ErrBadContentType, i+1)
		}
	}
	if t != strings.TrimSpace(t) {
		return fmt.Errorf("%w: it begins or ends with a space", problem.ErrBadContentType)
	}
	return nil
}

// NewRequestID returns 32 hexadecimal digits that name no other request: 128 bits of the runtime's ChaCha8.
func NewRequestID() string {
	const digits = "0123456789abcdef"
	var text [32]byte
	for half := range 2 {
		n := rand.Uint64()
		for i := range 16 {
			text[half*16+i] = digits[n&15]
			n >>= 4
		}
	}
	return string(text[:])
}

// ParseTimeout reads a Go duration above 0 and up to MaxTimeout; empty is DefaultTimeout. The error wraps
// problem.ErrBadParameter.
func ParseTimeout(s string) (time.Duration, error) {
	if s == "" {
		return DefaultTimeout, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%w: timeout is no duration such as 500ms or 2s", problem.ErrBadParameter)
	}
	if d <= 0 || d > MaxTimeout {
		return 0, fmt.Errorf("%w: timeout must be above 0 and at most %v", problem.ErrBadParameter, MaxTimeout)
	}
	return d, nil
}

// ParseQuorum reads r or w, whose name is given for the error, which wraps problem.ErrBadParameter. Empty is the
// gateway's default. Whether the number is within N is the coordinator's to say, which knows N.
func ParseQuorum(name, s string) (coordinator.Quorum, error) {
	q, err := coordinator.ParseQuorum(s)
	if err != nil {
		return q, fmt.Errorf("%w: %s must be one, quorum, all or a number from 1 to the number of replicas",
			problem.ErrBadParameter, name)
	}
	return q, nil
}

// Tokens turns contexts into tokens and back. Safe for concurrent use.
type Tokens struct {
	Keyring causal.Keyring
	// Cluster returns the cluster's id; false before the gateway knows it.
	Cluster func() (ring.ClusterID, bool)
}

// Decode returns the context of token, made for key. Errors wrap causal.ErrToken, or are problem.ErrNoLayout.
func (t Tokens) Decode(key []byte, token string) (causal.Context, error) {
	cluster, ok := t.Cluster()
	if !ok {
		return causal.Context{}, problem.ErrNoLayout
	}
	return t.Keyring.DecodeToken(cluster, key, token)
}

// Encode returns a token for all of c, or for the part of it that fits into a token, first of all what covers the
// siblings in keep. Less context is safe: a write with it makes siblings and never erases more. So neither a read nor a
// write that was already done fails because a clock has grown.
func (t Tokens) Encode(key []byte, c causal.Context, keep []causal.Sibling) (string, error) {
	cluster, ok := t.Cluster()
	if !ok {
		return "", problem.ErrNoLayout
	}
	token, err := t.Keyring.EncodeToken(cluster, key, c)
	if errors.Is(err, causal.ErrTokenTooLarge) {
		token, err = t.Keyring.EncodeToken(cluster, key, c.Fit(keep))
	}
	if err != nil {
		return "", fmt.Errorf("encode context: %w", err)
	}
	return token, nil
}

type requestIDKey struct{}

// WithRequestID returns a context that carries the id of the request to the services.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the id that WithRequestID put into ctx, else a new one.
func RequestID(ctx context.Context) string {
	if id, ok := ctx.Value(requestIDKey{}).(string); ok {
		return id
	}
	return NewRequestID()
}
