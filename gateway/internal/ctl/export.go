package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// exportLine bounds a line of JSON that is read: the largest record in base64, and some room.
const exportLine = 16 << 20

type exportCommand struct {
	Prefix argument `arg:"" optional:"" help:"What the keys begin with. Without one all keys are exported."`
	R      string   `short:"r" name:"read-quorum" help:"Replicas that must answer: 1 to N, one, quorum or all." placeholder:"R" complete:"one,quorum,all"`
}

// Help is shown by --help.
func (exportCommand) Help() string {
	return `Writes a line of JSON for each key to stdout, as get -o json prints it: values in base64, and all siblings. Keys are read ` +
		`one after the other while the cluster goes on, so that it is no picture of one moment; dotringctl backup is.

` + examples("dotringctl export > all.jsonl", "dotringctl export user/ | gzip > users.jsonl.gz")
}

// Run exports.
func (c exportCommand) Run(ctx context.Context, s *session) error {
	s.client.keepAlive()
	q := url.Values{}
	if err := quorumParam(q, "r", c.R); err != nil {
		return err
	}
	s.client.timeoutParam(q)
	out := bufio.NewWriter(s.env.Stdout)
	for cursor := ""; ; {
		page, err := s.page(ctx, c.Prefix.text, cursor, pageKeys)
		if err != nil {
			return err
		}
		keys := page.GetKeys()
		for from := 0; from < len(keys); from += bulkAtOnce {
			part := keys[from:min(from+bulkAtOnce, len(keys))]
			recs, errs := make([]record, len(part)), make([]error, len(part))
			var owned sync.WaitGroup
			for i, k := range part {
				key := []byte(k.GetKey())
				if len(key) == 0 {
					key = k.GetKeyBase64()
				}
				owned.Go(func() {
					errs[i] = s.patiently(ctx, bulkTries, func() (err error) {
						recs[i], err = s.readRecord(ctx, key, q)
						return err
					})
				})
			}
			owned.Wait()
			if err := errors.Join(errs...); err != nil {
				return errors.Join(out.Flush(), err)
			}
			for _, r := range recs {
				if r.State == "absent" { // deleted since it was listed
					continue
				}
				text, err := json.Marshal(r)
				if err != nil {
					return err
				}
				if _, err := out.Write(append(text, '\n')); err != nil {
					return fmt.Errorf("write to stdout: %w", err)
				}
			}
		}
		if cursor = page.GetCursor(); cursor == "" {
			if err := out.Flush(); err != nil {
				return fmt.Errorf("write to stdout: %w", err)
			}
			return nil
		}
	}
}

// readRecord reads one key with all its siblings.
func (s *session) readRecord(ctx context.Context, key []byte, q url.Values) (record, error) {
	a, err := s.client.do(ctx, call{method: http.MethodGet, path: keyPath(kvPath, key), query: q})
	if err != nil {
		return record{}, failed(err, "")
	}
	rec := record{State: "value", Context: a.header.Get("Kv-Context"), ETag: a.header.Get("Etag"), Siblings: []sibling{}}
	if utf8.Valid(key) {
		rec.Key = string(key)
	} else {
		rec.KeyBase64 = key
	}
	switch a.status {
	case http.StatusOK:
		v := sibling{Value: a.body, ContentType: a.header.Get("Content-Type"), ETag: rec.ETag}
		if t, err := http.ParseTime(a.header.Get("Last-Modified")); err == nil {
			v.LastModified = t.UTC().Format(time.RFC3339)
		}
		rec.Siblings = append(rec.Siblings, v)
		return rec, nil
	case http.StatusMultipleChoices:
		rec.State = "conflict"
		told := struct {
			Siblings *[]sibling `json:"siblings"`
		}{&rec.Siblings}
		if err := json.Unmarshal(a.body, &told); err != nil || len(rec.Siblings) == 0 {
			return record{}, &failure{code: ExitError, status: a.status, title: "the list of siblings cannot be read", detail: excerpt(a), hint: hintNotAGateway}
		}
		return rec, nil
	case http.StatusNotFound:
		if f := refused(a, ""); f.slug() != "no-value" {
			return record{}, f
		}
		rec.State = "absent"
		return rec, nil
	default:
		return record{}, refused(a, "")
	}
}

type importCommand struct {
	File string `arg:"" optional:"" default:"-" help:"File of lines as export writes them; - is stdin." type:"path" complete:"file"`
}

// Help is shown by --help.
func (importCommand) Help() string {
	return `Each line replaces what the cluster has of its key; several siblings become siblings again. Fields besides key or ` +
		`key_base64, and the value, content_type and tombstone of each of siblings, are not needed. It stops at the first line that ` +
		`fails, and names it; lines before it may have been stored, and running it again does no harm.

` + examples("dotringctl import all.jsonl", "zcat users.jsonl.gz | dotringctl import -")
}

// importLine is one line on its way.
type importLine struct {
	number int
	key    []byte
	rec    record
}

// Run imports.
func (c *importCommand) Run(ctx context.Context, s *session) (err error) {
	s.client.keepAlive()
	in := s.env.Stdin
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer func() { complainErr(s, f.Close()) }()
		in = f
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), exportLine)
	done, number := 0, 0
	var batch []importLine
	seen := make(map[string]bool)
	flush := func() error {
		errs := make([]error, len(batch))
		var owned sync.WaitGroup
		for i, l := range batch {
			owned.Go(func() { errs[i] = s.importLine(ctx, l) })
		}
		owned.Wait()
		for i, err := range errs {
			if err != nil {
				complain(s.env.Stderr, "dotringctl: line %d was not imported\n", batch[i].number)
				return err
			}
		}
		done += len(batch)
		batch = batch[:0]
		clear(seen)
		return nil
	}
	for lines.Scan() {
		number++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		l, err := parseLine(lines.Bytes())
		if err != nil {
			return errors.Join(flush(), &failure{code: ExitError, title: fmt.Sprintf("line %d makes no sense", number), detail: err.Error()})
		}
		l.number = number
		if len(batch) == bulkAtOnce || seen[string(l.key)] { // lines of one key keep their order
			if err := flush(); err != nil {
				return err
			}
		}
		seen[string(l.key)] = true
		batch = append(batch, l)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read line %d: %w", number+1, err)
	}
	if err := flush(); err != nil {
		return err
	}
	return s.print(fmt.Sprintf("Imported %s.\n", plural(uint64(done), "key")))
}

func parseLine(b []byte) (importLine, error) {
	var l importLine
	if err := json.Unmarshal(b, &l.rec); err != nil {
		return l, err
	}
	switch l.key = []byte(l.rec.Key); {
	case len(l.key) == 0:
		l.key = l.rec.KeyBase64
	case len(l.rec.KeyBase64) > 0:
		return l, errors.New("it has both key and key_base64")
	}
	if len(l.key) == 0 || len(l.key) > maxKeyBytes {
		return l, fmt.Errorf("a key has 1 to %d bytes, this one %d", maxKeyBytes, len(l.key))
	}
	if len(l.rec.Siblings) == 0 {
		return l, errors.New("it has no siblings")
	}
	for _, v := range l.rec.Siblings {
		if err := headerValue("content_type", v.ContentType); err != nil {
			return l, err
		}
	}
	return l, nil
}

// importLine stores one key. All siblings are written with the context of what is there, so that each replaces that and
// none another.
func (s *session) importLine(ctx context.Context, l importLine) error {
	q := url.Values{}
	s.client.timeoutParam(q)
	var now record
	if err := s.patiently(ctx, bulkTries, func() (err error) { now, err = s.readRecord(ctx, l.key, q); return err }); err != nil {
		return err
	}
	for _, v := range l.rec.Siblings {
		var id [16]byte
		if _, err := io.ReadFull(s.env.Random, id[:]); err != nil {
			return fmt.Errorf("make a request id: %w", err)
		}
		c := call{method: http.MethodPut, path: keyPath(kvPath, l.key), query: q, body: v.Value,
			header: http.Header{"Kv-Context": {now.Context}, "Kv-Request-Id": {fmt.Sprintf("%x", id)}}}
		if c.body == nil {
			c.body = []byte{}
		}
		if v.ContentType != "" {
			c.header.Set("Content-Type", v.ContentType)
		}
		if v.Tombstone {
			c.method, c.body = http.MethodDelete, nil
		}
		err := s.patiently(ctx, bulkTries, func() error {
			a, err := s.client.do(ctx, c)
			if err != nil {
				return failed(err, "")
			}
			if a.status != http.StatusOK {
				return refused(a, "")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
