package causal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/zeebo/xxh3"
)

// Every error of DecodeToken wraps ErrToken and one of the four beneath it.
var (
	ErrToken             = errors.New("causal: bad context token")
	ErrTokenDamaged      = fmt.Errorf("%w: damaged or forged", ErrToken)
	ErrTokenOtherKey     = fmt.Errorf("%w: it belongs to another key", ErrToken)
	ErrTokenOtherCluster = fmt.Errorf("%w: it belongs to another cluster", ErrToken)
	ErrTokenVersion      = fmt.Errorf("%w: unknown version", ErrToken)
	// ErrTokenTooLarge says that a context does not fit into a token.
	ErrTokenTooLarge = errors.New("causal: context too large for a token")
	// ErrKeyring is wrapped by the errors of NewKeyring.
	ErrKeyring = errors.New("causal: bad context keys")
)

const (
	// MaxToken is the most characters a token has, so that it passes the default header buffers of load balancers.
	MaxToken = 3072
	// MinContextKey is the least bytes of a context key.
	MinContextKey = 16

	// The first byte of a token says both its version and how it is sealed, so that a checksum that anyone can compute
	// is never taken where a key is configured.
	kindChecksum = 0x01
	kindMAC      = 0x02

	clusterAt   = 1
	keyHashAt   = clusterAt + 16
	contextAt   = keyHashAt + 16
	macSize     = 16
	checksumLen = 8

	maxRawToken = MaxToken / 4 * 3
	usualToken  = 192
	// maxContextBytes is the room for a context's binary form under the longer of the two seals.
	maxContextBytes = maxRawToken - contextAt - macSize
)

// Keyring holds the cluster's context keys: none, one, or two during a rotation. The first signs, all verify. The zero
// value has no key: its tokens carry a checksum that tells damage but not forgery. A Keyring may be copied and is safe
// for concurrent use.
type Keyring struct {
	keys []*contextKey
}

type contextKey struct {
	secret      []byte
	fingerprint [8]byte
	states      sync.Pool // of *tokenState, each keyed with secret
}

// tokenState is what sealing or opening one token needs; pooled, since to key an HMAC costs more than to use it.
type tokenState struct {
	mac  hash.Hash
	sum  [sha256.Size]byte
	raw  [maxRawToken]byte
	text [MaxToken]byte
}

// NewKeyring returns a keyring that signs with the first of keys and verifies with all. Keys are copied. Errors wrap
// ErrKeyring: more than two keys, a key of less than MinContextKey bytes, or the same key twice.
func NewKeyring(keys ...[]byte) (Keyring, error) {
	if len(keys) > 2 {
		return Keyring{}, fmt.Errorf("%w: %d keys, at most two are valid during a rotation", ErrKeyring, len(keys))
	}
	ring := Keyring{}
	for i, k := range keys {
		if len(k) < MinContextKey {
			return Keyring{}, fmt.Errorf("%w: key %d has %d bytes, it needs %d", ErrKeyring, i+1, len(k), MinContextKey)
		}
		ring.keys = append(ring.keys, newContextKey(bytes.Clone(k)))
	}
	if len(keys) == 2 && bytes.Equal(keys[0], keys[1]) {
		return Keyring{}, fmt.Errorf("%w: both keys are the same", ErrKeyring)
	}
	return ring, nil
}

func newContextKey(secret []byte) *contextKey {
	k := &contextKey{secret: secret}
	// No token begins like this text, so that a fingerprint tells nothing about any token's MAC.
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("dotring context key fingerprint 1"))
	copy(k.fingerprint[:], mac.Sum(nil))
	return k
}

func (k *contextKey) get() *tokenState {
	if s, ok := k.states.Get().(*tokenState); ok {
		return s
	}
	return &tokenState{mac: hmac.New(sha256.New, k.secret)}
}

// seal returns the MAC of body, in memory of s.
func (s *tokenState) seal(body []byte) []byte {
	s.mac.Reset()
	s.mac.Write(body)
	return s.mac.Sum(s.sum[:0])[:macSize]
}

// Fingerprints returns a public name of each key, in the order of NewKeyring: the first 8 bytes of an HMAC under it.
// Gateways compare them to see whether they share the cluster's keys.
func (k Keyring) Fingerprints() [][8]byte {
	out := make([][8]byte, len(k.keys))
	for i, key := range k.keys {
		out[i] = key.fingerprint
	}
	return out
}

// EncodeToken returns c as an opaque token of at most MaxToken characters of URL-safe base64, bound to the cluster and
// the key. c must be Valid. The error is ErrTokenTooLarge where c does not fit: Context.Fit says what would.
func (k Keyring) EncodeToken(cluster [16]byte, key []byte, c Context) (string, error) {
	if n := contextSize(c); n > maxContextBytes {
		return "", fmt.Errorf("%w: %d bytes, the limit is %d", ErrTokenTooLarge, n, maxContextBytes)
	}
	if len(k.keys) == 0 {
		var raw [usualToken]byte // most tokens fit; the largest would cost more to clear than to make
		body := appendBody(raw[:0], kindChecksum, cluster, key, c)
		sum := sha256.Sum256(body)
		return encodeText(append(body, sum[:checksumLen]...)), nil
	}
	s := k.keys[0].get()
	defer k.keys[0].states.Put(s)
	body := appendBody(s.raw[:0], kindMAC, cluster, key, c)
	return encodeText(append(body, s.seal(body)...)), nil
}

func appendBody(dst []byte, kind byte, cluster [16]byte, key []byte, c Context) []byte {
	dst = append(dst, kind)
	dst = append(dst, cluster[:]...)
	name := keyHash(key)
	dst = append(dst, name[:]...)
	return AppendContext(dst, c)
}

func keyHash(key []byte) [16]byte { return xxh3.Hash128(key).Bytes() }

func encodeText(raw []byte) string {
	var text [usualToken * 4 / 3]byte
	return string(base64.RawURLEncoding.AppendEncode(text[:0], raw))
}

// DecodeToken returns the context of a token that EncodeToken made for this cluster and key under one of the keyring's
// keys (or, where the keyring has none, with a checksum). It never panics, and accepts one spelling of a token only.
// Errors wrap ErrToken and one of ErrTokenDamaged, ErrTokenOtherKey, ErrTokenOtherCluster, ErrTokenVersion.
func (k Keyring) DecodeToken(cluster [16]byte, key []byte, token string) (Context, error) {
	if len(token) > MaxToken {
		return Context{}, fmt.Errorf("%w: %d characters, the limit is %d", ErrTokenDamaged, len(token), MaxToken)
	}
	if len(k.keys) == 0 {
		return decodeChecksummed(cluster, key, token)
	}
	s := k.keys[0].get()
	defer k.keys[0].states.Put(s)
	raw, err := decodeText(s.raw[:], s.text[:], token)
	if err != nil {
		return Context{}, err
	}
	if raw[0] == kindChecksum {
		return Context{}, fmt.Errorf("%w: it has no signature, and this cluster has a context key", ErrTokenDamaged)
	}
	body, given, err := splitSeal(raw, kindMAC, macSize)
	if err != nil {
		return Context{}, err
	}
	if !hmac.Equal(s.seal(body), given) && !k.signedByOther(body, given) {
		return Context{}, fmt.Errorf("%w: its signature is not of this cluster's context key", ErrTokenDamaged)
	}
	return readBody(body, cluster, key)
}

// signedByOther says whether given is the MAC of body under a key other than the first.
func (k Keyring) signedByOther(body, given []byte) bool {
	for _, other := range k.keys[1:] {
		o := other.get()
		same := hmac.Equal(o.seal(body), given)
		other.states.Put(o)
		if same {
			return true
		}
	}
	return false
}

func decodeChecksummed(cluster [16]byte, key []byte, token string) (Context, error) {
	var scratch [maxRawToken]byte
	var text [MaxToken]byte
	raw, err := decodeText(scratch[:], text[:], token)
	if err != nil {
		return Context{}, err
	}
	if raw[0] == kindMAC {
		return Context{}, fmt.Errorf("%w: it is signed, and this gateway has no context key", ErrTokenDamaged)
	}
	body, given, err := splitSeal(raw, kindChecksum, checksumLen)
	if err != nil {
		return Context{}, err
	}
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:checksumLen], given) {
		return Context{}, fmt.Errorf("%w: its checksum is wrong", ErrTokenDamaged)
	}
	return readBody(body, cluster, key)
}

// splitSeal parts a token of this kind from the seal at its end.
func splitSeal(raw []byte, kind byte, seal int) (body, given []byte, err error) {
	if raw[0] != kind {
		return nil, nil, fmt.Errorf("%w: %d", ErrTokenVersion, raw[0])
	}
	if len(raw) < contextAt+seal {
		return nil, nil, fmt.Errorf("%w: cut short", ErrTokenDamaged)
	}
	return raw[:len(raw)-seal], raw[len(raw)-seal:], nil
}

// decodeText decodes URL-safe base64 without padding into raw and refuses every spelling but the encoder's: line breaks,
// which the package skips, and stray bits in the last character, which it ignores.
func decodeText(raw, text []byte, token string) ([]byte, error) {
	text = text[:copy(text, token)]
	n, err := base64.RawURLEncoding.Decode(raw, text)
	if err != nil || n == 0 || len(text) != base64.RawURLEncoding.EncodedLen(n) {
		return nil, fmt.Errorf("%w: not a context token", ErrTokenDamaged)
	}
	if over := n % 3; over > 0 {
		var last [4]byte
		base64.RawURLEncoding.Encode(last[:], raw[n-over:n])
		if !bytes.Equal(last[:over+1], text[len(text)-over-1:]) {
			return nil, fmt.Errorf("%w: stray bits at its end", ErrTokenDamaged)
		}
	}
	return raw[:n], nil
}

// readBody reads a body whose seal was right.
func readBody(body []byte, cluster [16]byte, key []byte) (Context, error) {
	if !bytes.Equal(body[clusterAt:keyHashAt], cluster[:]) {
		return Context{}, ErrTokenOtherCluster
	}
	if name := keyHash(key); !bytes.Equal(body[keyHashAt:contextAt], name[:]) {
		return Context{}, ErrTokenOtherKey
	}
	c, err := DecodeContext(body[contextAt:])
	if err != nil {
		return Context{}, fmt.Errorf("%w: %w", ErrTokenDamaged, err)
	}
	return c, nil
}
