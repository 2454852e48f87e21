// Package access says who may do what to which keys, and how much of it: bearer tokens with rules by key prefix, and limits. It decides
// and does no I/O, but for the Guard, which reads the file.
package access

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Action is what is done to a key. The zero Action is none.
type Action uint8

// Get reads, inspects and lists; Put and Delete write. Admin reads and changes the cluster, and is granted for the empty
// prefix alone; it includes nothing else.
const (
	Get Action = 1 << iota
	Put
	Delete
	Admin
)

var actionNames = map[string]Action{"get": Get, "put": Put, "delete": Delete, "admin": Admin}

// String returns the name that a file of rules uses.
func (a Action) String() string {
	for name, b := range actionNames {
		if a == b {
			return name
		}
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

var (
	// ErrUnauthenticated says that a request has no token, or one that is not known.
	ErrUnauthenticated = errors.New("no valid credentials: send Authorization: Bearer TOKEN")
	// ErrDenied says that a token may not do what was asked.
	ErrDenied = errors.New("the token does not allow it")
)

const (
	// MaxTokens and MaxRules bound a file: tokens, and rules of one token.
	MaxTokens = 10_000
	MaxRules  = 1_000
	// maxKey is the longest key, and so the longest prefix that means anything.
	maxKey = 250
)

// Rules are the tokens of one file. They are immutable and safe for concurrent use.
type Rules struct {
	principals map[[sha256.Size]byte]*Principal
}

// Principal is the holder of a token. It is immutable, but for what it took of its limits, and safe for concurrent use. A nil Principal
// may do everything, and as much as it likes: that of a gateway without rules.
type Principal struct {
	name    string
	expires time.Time // zero: never
	rules   []rule    // sorted by prefix
	limits  limits
	use     *usage // nil: there are no limits, or no Guard holds the Principal to them
}

type rule struct {
	prefix  string
	actions Action
}

// Name is what people call the token's holder; empty for the nil Principal.
func (p *Principal) Name() string {
	if p == nil {
		return ""
	}
	return p.name
}

// Allows says whether the holder may do action, one of Get, Put and Delete, to key. Of the rules whose prefix the key
// has, the longest decides alone; where there is none, the answer is no.
func (p *Principal) Allows(action Action, key []byte) bool {
	if p == nil {
		return true
	}
	// Prefixes of key sort before it, longer ones later; between them may lie other prefixes, which are no prefix of key.
	i := sort.Search(len(p.rules), func(i int) bool { return p.rules[i].prefix > string(key) })
	for i--; i >= 0; i-- {
		if bytes.HasPrefix(key, []byte(p.rules[i].prefix)) {
			return p.rules[i].actions&action != 0
		}
	}
	return false
}

// Administers says whether the holder may see and change the cluster.
func (p *Principal) Administers() bool {
	return p == nil || slices.ContainsFunc(p.rules, func(r rule) bool { return r.actions&Admin != 0 })
}

// Authenticate returns the holder of a token at a time. The error is ErrUnauthenticated.
func (r *Rules) Authenticate(token string, now time.Time) (*Principal, error) {
	// What is looked up is a hash that the asker cannot steer, so that the time it takes tells nothing of other tokens.
	p := r.principals[sha256.Sum256([]byte(token))]
	if p == nil || token == "" || !p.expires.IsZero() && !now.Before(p.expires) {
		return nil, ErrUnauthenticated
	}
	return p, nil
}

// Bearer returns the token of an Authorization header. The error is ErrUnauthenticated.
func Bearer(header string) (string, error) {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", ErrUnauthenticated
	}
	return strings.TrimLeft(token, " "), nil
}

// Size is the number of tokens.
func (r *Rules) Size() int { return len(r.principals) }

// document is a file of rules.
type document struct {
	Tokens []Entry `yaml:"tokens"`
}

// Entry is a token in a file of rules: never itself, only its hash.
type Entry struct {
	Name    string       `yaml:"name"`
	SHA256  string       `yaml:"sha256"`            // of the token's text, hex
	Expires *time.Time   `yaml:"expires,omitempty"` // RFC 3339
	Limits  *EntryLimits `yaml:"limits,omitempty"`
	Rules   []EntryRule  `yaml:"rules"`
}

// EntryRule is one rule of a token in a file. A prefix that is not UTF-8 cannot be written.
type EntryRule struct {
	Prefix string   `yaml:"prefix"`
	Allow  []string `yaml:"allow,flow"`
}

// Parse reads a file of rules: YAML, or JSON, which is YAML too. The error joins every fault.
func Parse(text []byte) (*Rules, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var doc document
	if err := d.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("access rules: %w", err)
	}
	var faults []error
	if len(doc.Tokens) == 0 {
		faults = append(faults, errors.New("access rules: there is no token, so that nobody could do anything"))
	}
	if len(doc.Tokens) > MaxTokens {
		faults = append(faults, fmt.Errorf("access rules: %d tokens, the limit is %d", len(doc.Tokens), MaxTokens))
	}
	out := &Rules{principals: make(map[[sha256.Size]byte]*Principal, len(doc.Tokens))}
	names := make(map[string]bool, len(doc.Tokens))
	for i, e := range doc.Tokens {
		hash, p, errs := e.compile()
		if names[e.Name] {
			errs = append(errs, errors.New("another token has the same name"))
		}
		if out.principals[hash] != nil && len(errs) == 0 {
			errs = append(errs, errors.New("another token has the same hash"))
		}
		names[e.Name] = true
		for _, err := range errs {
			faults = append(faults, fmt.Errorf("access rules: token %d (%q): %w", i+1, e.Name, err))
		}
		out.principals[hash] = p
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return out, nil
}

// compile checks an entry.
func (e Entry) compile() (hash [sha256.Size]byte, p *Principal, faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if e.Name == "" || len(e.Name) > 64 {
		fault("a name of 1 to 64 bytes is needed")
	}
	if sum, err := hex.DecodeString(e.SHA256); err != nil || len(sum) != len(hash) {
		fault("sha256 is not 64 hexadecimal digits")
	} else {
		copy(hash[:], sum)
	}
	if len(e.Rules) == 0 || len(e.Rules) > MaxRules {
		fault("%d rules are not within 1 to %d", len(e.Rules), MaxRules)
	}
	p = &Principal{name: e.Name}
	if e.Expires != nil {
		p.expires = *e.Expires
	}
	var err error
	if p.limits, err = e.Limits.compile(); err != nil {
		faults = append(faults, err)
	}
	for _, r := range e.Rules {
		var actions Action
		for _, name := range r.Allow {
			a, ok := actionNames[name]
			if !ok {
				fault("rule %q: %q is none of get, put, delete, admin", r.Prefix, name)
			}
			actions |= a
		}
		if actions&Admin != 0 && r.Prefix != "" {
			fault("rule %q: admin is for the whole cluster, and so for the empty prefix alone", r.Prefix)
		}
		if len(r.Prefix) > maxKey {
			fault("rule %.20q…: no key has a prefix of more than %d bytes", r.Prefix, maxKey)
		}
		p.rules = append(p.rules, rule{prefix: r.Prefix, actions: actions})
	}
	slices.SortFunc(p.rules, func(a, b rule) int { return strings.Compare(a.prefix, b.prefix) })
	for i := 1; i < len(p.rules); i++ {
		if p.rules[i].prefix == p.rules[i-1].prefix {
			fault("rule %q: there are two for this prefix", p.rules[i].prefix)
		}
	}
	return hash, p, faults
}

// TokenPrefix begins every token, so that tools that look for leaked secrets know one.
const TokenPrefix = "dotring_"

// NewToken makes a token of 256 random bits, and the entry to put into a file of rules. The token is in nothing else: who
// loses it needs a new one.
func NewToken(name string, expires time.Time, rules []EntryRule) (token string, e Entry, err error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", Entry{}, fmt.Errorf("make token: %w", err)
	}
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(token))
	e = Entry{Name: name, SHA256: hex.EncodeToString(sum[:]), Rules: rules}
	if !expires.IsZero() {
		e.Expires = &expires
	}
	if _, _, faults := e.compile(); len(faults) > 0 {
		return "", Entry{}, errors.Join(faults...)
	}
	return token, e, nil
}

// Append adds an entry to the text of a file of rules, which may be empty, and returns the new text.
func Append(text []byte, e Entry) ([]byte, error) {
	var doc document
	if len(bytes.TrimSpace(text)) > 0 {
		if _, err := Parse(text); err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(text, &doc); err != nil {
			return nil, fmt.Errorf("access rules: %w", err)
		}
	}
	doc.Tokens = append(doc.Tokens, e)
	out, err := yaml.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("access rules: %w", err)
	}
	if _, err := Parse(out); err != nil {
		return nil, err
	}
	return out, nil
}
