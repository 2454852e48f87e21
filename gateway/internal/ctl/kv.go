package ctl

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

const (
	maxKeyBytes  = 250
	maxRequestID = 64
	kvPath       = "/v1/kv/"
	// shownBytes is how much of a sibling's value is shown.
	shownBytes = 256
)

// argument is a word of the command line, byte for byte: kong's own strings lose what is not UTF-8.
type argument struct {
	text  string
	given bool
}

// Decode serves kong.
func (a *argument) Decode(ctx *kong.DecodeContext) error {
	token, err := ctx.Scan.PopValue("text")
	if err != nil {
		return err
	}
	word, ok := token.Value.(string)
	if !ok {
		return fmt.Errorf("expected text, not %v", token)
	}
	a.text, a.given = word, true
	return nil
}

// keyArgument is the key that a command is about.
type keyArgument struct {
	Key       argument `arg:"" help:"The key: 1 to 250 bytes, taken as they are."`
	KeyBase64 bool     `name:"key-base64" help:"KEY is base64, for bytes that a shell cannot hold."`
}

func (k keyArgument) bytes() ([]byte, error) {
	key := []byte(k.Key.text)
	if k.KeyBase64 {
		// Both alphabets, with and without padding.
		s := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(k.Key.text, "="))
		var err error
		if key, err = base64.RawStdEncoding.DecodeString(s); err != nil {
			return nil, usageError("KEY is not base64, as --key-base64 says it is")
		}
	}
	switch {
	case len(key) == 0:
		return nil, usageError("KEY is empty")
	case len(key) > maxKeyBytes:
		return nil, usageError(fmt.Sprintf("KEY has %d bytes, the limit is %d", len(key), maxKeyBytes))
	}
	return key, nil
}

var quorumForm = regexp.MustCompile(`^(one|quorum|all|[1-9][0-9]?)$`)

// quorumParam adds r or w to a query.
func quorumParam(q url.Values, name, value string) error {
	if value == "" {
		return nil
	}
	if !quorumForm.MatchString(value) {
		return usageError(fmt.Sprintf("-%s takes one, quorum, all or a number from 1 to the number of replicas", name))
	}
	q.Set(name, value)
	return nil
}

// headerValue says whether a flag's value can be sent in a header.
func headerValue(flag, value string) error {
	for i := range len(value) {
		if value[i] < 0x20 || value[i] > 0x7e {
			return usageError(fmt.Sprintf("%s takes printable ASCII, which its character %d is not", flag, i+1))
		}
	}
	return nil
}

// contextHeader adds a context.
func contextHeader(h http.Header, token *string) error {
	if token == nil {
		return nil
	}
	if *token == "" {
		return usageError("--context is empty; leave it out to send none")
	}
	if err := headerValue("--context", *token); err != nil {
		return err
	}
	h.Set("Kv-Context", *token)
	return nil
}

func (c *client) timeoutParam(q url.Values) {
	if c.timeout > 0 {
		q.Set("timeout", c.timeout.String())
	}
}

type getCommand struct {
	keyArgument
	R           string   `short:"r" name:"read-quorum" help:"Replicas that must answer: 1 to N, one, quorum or all." placeholder:"R" complete:"one,quorum,all"`
	Context     *string  `help:"Read your writes: the answer covers this context, or the read fails." placeholder:"TOKEN"`
	Etag        string   `help:"Of several siblings, the one with this etag." placeholder:"ETAG"`
	OutputFile  argument `help:"Write the value to FILE, which is left alone unless there is one." placeholder:"FILE" complete:"file"`
	ShowContext bool     `help:"Print the context on stderr, for the next write."`
	Raw         bool     `help:"Write control characters to a terminal as they are stored."`
}

// Help is shown by --help.
func (getCommand) Help() string {
	return `The value goes to stdout byte for byte. On a terminal a line end is added to a value without one, and control ` +
		`characters are shown escaped (see --raw). When concurrent writes left several siblings, they are listed on stderr, ` +
		`nothing goes to stdout, and the exit code is 4; 3 says that there is no value. With --output json stdout has one ` +
		`object, values in base64, in each of these cases.

` + examples("dotringctl get colour",
		"dotringctl get photos/cat.jpg > cat.jpg",
		"dotringctl get -r all --show-context colour",
		"dotringctl get colour --etag 0b1c…        # one of several siblings",
		"dotringctl get colour -o json | jq -r .context",
		"dotringctl get --key-base64 AAEC          # the bytes 0, 1, 2")
}

// sibling is one value of a record, as the gateway's JSON has it and as ours has it.
type sibling struct {
	Value        []byte `json:"value"` // base64 in JSON
	ContentType  string `json:"content_type"`
	ETag         string `json:"etag"`
	LastModified string `json:"last_modified"` // RFC 3339, empty where not known
	Tombstone    bool   `json:"tombstone"`
}

// record is the stable object that get prints for scripts. The gateway's 300 is a part of it.
type record struct {
	Key       string    `json:"key,omitempty"` // where it is UTF-8, else KeyBase64
	KeyBase64 []byte    `json:"key_base64,omitempty"`
	State     string    `json:"state"` // "value", "conflict" or "absent"
	Context   string    `json:"context"`
	ETag      string    `json:"etag"`
	Siblings  []sibling `json:"siblings"`
}

// Run reads one key.
func (g *getCommand) Run(ctx context.Context, s *session) error {
	key, err := g.bytes()
	if err != nil {
		return err
	}
	q := call{method: http.MethodGet, path: keyPath(kvPath, key), query: url.Values{}, header: http.Header{}}
	if err := errors.Join(quorumParam(q.query, "r", g.R), contextHeader(q.header, g.Context)); err != nil {
		return err
	}
	s.client.timeoutParam(q.query)
	if g.Etag != "" {
		q.query.Set("etag", strings.Trim(g.Etag, `"`))
	}
	a, err := s.client.do(ctx, q)
	if err != nil {
		return failed(err, "")
	}
	rec := record{Context: a.header.Get("Kv-Context"), ETag: strings.Trim(a.header.Get("Etag"), `"`), Siblings: []sibling{}}
	if utf8.Valid(key) {
		rec.Key = string(key)
	} else {
		rec.KeyBase64 = key
	}
	switch a.status {
	case http.StatusOK:
		return g.value(s, a, rec)
	case http.StatusMultipleChoices:
		return g.conflict(s, a, rec, key)
	case http.StatusNotFound:
		f := refused(a, "")
		if slug := f.slug(); slug != "no-value" && slug != "no-such-sibling" {
			return f
		}
		return g.absent(s, f, rec, key)
	default:
		return refused(a, "")
	}
}

func (g *getCommand) value(s *session, a answer, rec record) error {
	g.showContext(s, rec)
	if g.OutputFile.text != "" {
		if err := os.WriteFile(g.OutputFile.text, a.body, 0o666); err != nil {
			return fmt.Errorf("write the value: %w", err)
		}
		if !s.json {
			return nil
		}
	}
	if s.json {
		v := sibling{Value: a.body, ContentType: a.header.Get("Content-Type"), ETag: rec.ETag}
		if t, err := http.ParseTime(a.header.Get("Last-Modified")); err == nil {
			v.LastModified = t.UTC().Format(time.RFC3339)
		}
		rec.State, rec.Siblings = "value", []sibling{v}
		return s.printJSON(rec)
	}
	if !s.env.StdoutTerminal {
		_, err := s.env.Stdout.Write(a.body)
		if err != nil {
			return fmt.Errorf("write to stdout: %w", err)
		}
		return nil
	}
	shown, escaped := string(a.body), false
	if !g.Raw {
		shown, escaped = forTerminal(a.body)
	}
	if !strings.HasSuffix(shown, "\n") {
		shown += "\n"
	}
	if err := s.print(shown); err != nil {
		return err
	}
	if escaped {
		complain(s.env.Stderr, "dotringctl: control characters are shown escaped; --raw, a pipe or a file gets the value as it is stored\n")
	}
	return nil
}

func (g *getCommand) showContext(s *session, rec record) {
	if g.ShowContext {
		complain(s.env.Stderr, "context: %s\n", escapeText(rec.Context))
	}
}

func (g *getCommand) absent(s *session, f *failure, rec record, key []byte) error {
	rec.State = "absent"
	if f.slug() == "no-such-sibling" {
		complain(s.env.Stderr, "dotringctl: %s: no sibling has the etag %s\n", quote(key), quote([]byte(g.Etag)))
	} else {
		complain(s.env.Stderr, "dotringctl: %s has no value\n", quote(key))
	}
	g.showContext(s, rec)
	if s.json {
		if err := s.printJSON(rec); err != nil {
			return err
		}
	}
	return exitCode(ExitNotFound)
}

func (g *getCommand) conflict(s *session, a answer, rec record, key []byte) error {
	told := struct {
		Context  *string    `json:"context"`
		Siblings *[]sibling `json:"siblings"`
	}{&rec.Context, &rec.Siblings}
	if err := json.Unmarshal(a.body, &told); err != nil || len(rec.Siblings) == 0 {
		return &failure{code: ExitError, status: a.status, title: "the list of siblings cannot be read", detail: excerpt(a), hint: hintNotAGateway}
	}
	rec.State = "conflict"
	if s.json {
		if err := s.printJSON(rec); err != nil {
			return err
		}
	} else {
		complain(s.env.Stderr, "%s", siblingsText(s.err, key, rec))
	}
	return exitCode(ExitConflict)
}

// siblingsText lists the siblings of a record for people.
func siblingsText(p palette, key []byte, rec record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s holds %s of concurrent writes:\n", p.paint(doubtful, "Conflict:"), quote(key), plural(len(rec.Siblings), "sibling"))
	for i, v := range rec.Siblings {
		fmt.Fprintf(&b, "\n%s etag %s  %s  written %s\n", p.paint(heading, fmt.Sprintf("%d.", i+1)), escapeText(v.ETag),
			escapeText(v.ContentType), escapeText(v.LastModified))
		if v.Tombstone {
			fmt.Fprintf(&b, "   %s\n", p.paint(bad, "deleted"))
			continue
		}
		shown, cut := preview(v.Value, shownBytes)
		if cut {
			shown += " … " + p.paint(faint, "(all of it: --etag "+escapeText(v.ETag)+")")
		}
		fmt.Fprintf(&b, "   %s: %s\n", plural(len(v.Value), "byte"), shown)
	}
	fmt.Fprintf(&b, "\ncontext: %s\n", escapeText(rec.Context))
	fmt.Fprintf(&b, "Read one with --etag ETAG. Replace all of them by one value with: dotringctl put --context CONTEXT KEY VALUE\n")
	return b.String()
}

// writeFlags are the flags of every write.
type writeFlags struct {
	W         string  `short:"w" name:"write-quorum" help:"Machines that must have the write on disk: 1 to N, one, quorum or all." placeholder:"W" complete:"one,quorum,all"`
	Context   *string `help:"Replace exactly what this context covers. Without one, the write replaces what the cluster knows." placeholder:"TOKEN"`
	RequestID string  `help:"Name of the write, up to 64 characters: repeated within ten minutes it is not made twice. Default: a random one." placeholder:"ID"`
	Sloppy    bool    `help:"Whether stand-ins may count towards the write quorum." default:"true" negatable:""`
}

// call returns the write's request.
func (f *writeFlags) call(s *session, method string, key []byte) (call, error) {
	q := call{method: method, path: keyPath(kvPath, key), query: url.Values{}, header: http.Header{}}
	if err := errors.Join(quorumParam(q.query, "w", f.W), contextHeader(q.header, f.Context)); err != nil {
		return q, err
	}
	s.client.timeoutParam(q.query)
	if !f.Sloppy {
		q.query.Set("sloppy", "false")
	}
	if f.RequestID == "" {
		var id [16]byte
		if _, err := io.ReadFull(s.env.Random, id[:]); err != nil {
			return q, fmt.Errorf("make a request id: %w", err)
		}
		f.RequestID = hex.EncodeToString(id[:])
	}
	if len(f.RequestID) > maxRequestID {
		return q, usageError(fmt.Sprintf("--request-id has %d characters, the limit is %d", len(f.RequestID), maxRequestID))
	}
	q.header.Set("Kv-Request-Id", f.RequestID)
	return q, headerValue("--request-id", f.RequestID)
}

// send sends a write and prints what became of it; done is the word for that.
func (f *writeFlags) send(ctx context.Context, s *session, q call, done string, key []byte) error {
	a, err := s.client.do(ctx, q)
	if err != nil {
		return failed(err, f.RequestID)
	}
	if a.status != http.StatusOK {
		return refused(a, f.RequestID)
	}
	var written struct {
		Context  string `json:"context"`
		Siblings uint32 `json:"siblings"`
		Acks     uint32 `json:"acks"`
		Hinted   uint32 `json:"hinted"`
	}
	if err := json.Unmarshal(a.body, &written); err != nil || written.Context == "" {
		return refused(a, f.RequestID)
	}
	if s.json {
		return s.printRawJSON(a.body)
	}
	machines := plural(written.Acks, "machine")
	if written.Hinted > 0 {
		machines += ", " + plural(written.Hinted, "stand-in") + " among them"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, on the disks of %s\n", s.out.paint(good, done), quote(key), machines)
	if written.Siblings > 1 {
		fmt.Fprintf(&b, "%s it now has %s; see them with: dotringctl get KEY\n", s.out.paint(doubtful, "Conflict:"), plural(written.Siblings, "sibling"))
	}
	fmt.Fprintf(&b, "context: %s\n", escapeText(written.Context))
	return s.print(b.String())
}

type putCommand struct {
	keyArgument
	Value argument `arg:"" optional:"" help:"The value; - or none reads it from stdin."`
	writeFlags
	ContentType string `help:"Media type of the value. Default: application/octet-stream." placeholder:"TYPE"`
}

// Help is shown by --help.
func (putCommand) Help() string {
	return `Prints on how many machines the write is on disk, and its context: with that, a read through any gateway covers ` +
		`the write, and the next write replaces it. A key or value that begins with - goes after --.

` + examples("dotringctl put colour blue",
		"dotringctl put photos/cat.jpg --content-type image/jpeg < cat.jpg",
		"date | dotringctl put -w all now -",
		`dotringctl put colour green --context "$context"    # resolve a conflict`,
		"dotringctl put -- temperature -5")
}

// Run writes one key.
func (p *putCommand) Run(ctx context.Context, s *session) error {
	key, err := p.bytes()
	if err != nil {
		return err
	}
	q, err := p.call(s, http.MethodPut, key)
	if err != nil {
		return err
	}
	if p.ContentType != "" {
		if err := headerValue("--content-type", p.ContentType); err != nil {
			return err
		}
		q.header.Set("Content-Type", p.ContentType)
	}
	if q.body, err = p.value(s); err != nil {
		return err
	}
	return p.send(ctx, s, q, "Stored", key)
}

// value returns what is to be stored, never nil.
func (p *putCommand) value(s *session) ([]byte, error) {
	if p.Value.given && p.Value.text != "-" {
		return []byte(p.Value.text), nil
	}
	if s.env.StdinTerminal {
		complain(s.env.Stderr, "Reading the value from the keyboard: end it with Ctrl-D.\n")
	}
	b, err := io.ReadAll(io.LimitReader(s.env.Stdin, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the value from stdin: %w", err)
	}
	if len(b) > maxBody {
		return nil, usageError(fmt.Sprintf("the value has more than %s", byteSize(maxBody)))
	}
	return b, nil
}

type deleteCommand struct {
	keyArgument
	writeFlags
}

// Help is shown by --help.
func (deleteCommand) Help() string {
	return `Deleting what is not there is no error. A deletion is a write like any other: writes that it has not seen stay.

` + examples("dotringctl delete colour",
		`dotringctl delete colour --context "$context"    # only what was seen`,
		"dotringctl delete -w all --sloppy=false colour")
}

// Run deletes one key.
func (d *deleteCommand) Run(ctx context.Context, s *session) error {
	key, err := d.bytes()
	if err != nil {
		return err
	}
	q, err := d.call(s, http.MethodDelete, key)
	if err != nil {
		return err
	}
	return d.send(ctx, s, q, "Deleted", key)
}
