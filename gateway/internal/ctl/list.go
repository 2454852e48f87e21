package ctl

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// pageKeys is how many keys a request asks for.
const pageKeys = 1000

type listCommand struct {
	Prefix argument `arg:"" optional:"" help:"What the keys begin with. Without one all keys are listed."`
	Limit  int      `help:"Stop after so many keys; 0 for all." placeholder:"N"`
	Cursor string   `help:"Go on where a listing with --limit ended." placeholder:"CURSOR"`
}

// Help is shown by --help.
func (listCommand) Help() string {
	return "Lists keys, a line each, in no meaningful order; with --output json an object each, which also holds what is no text. " +
		"Where --limit ends it, the cursor to go on with goes to stderr. The whole cluster is gone through, whatever the prefix.\n\n" +
		examples("dotringctl list", "dotringctl list user/", "dotringctl list user/ -o json | jq -r .key")
}

// Run lists keys.
func (c listCommand) Run(ctx context.Context, s *session) error {
	if c.Limit < 0 {
		return usageError("--limit is negative")
	}
	cursor := c.Cursor
	for left := c.Limit; ; {
		n := pageKeys
		if c.Limit > 0 {
			n = min(n, left)
		}
		page, err := s.page(ctx, c.Prefix.text, cursor, n)
		if err != nil {
			return err
		}
		text, err := s.keysText(page.GetKeys())
		if err != nil {
			return err
		}
		if err := s.print(text); err != nil {
			return err
		}
		left -= len(page.GetKeys())
		if cursor = page.GetCursor(); cursor == "" {
			return nil
		}
		if c.Limit > 0 && left <= 0 {
			complain(s.env.Stderr, "more: --cursor %s\n", cursor)
			return nil
		}
	}
}

func (s *session) page(ctx context.Context, prefix, cursor string, limit int) (*kvv1.ListKeysResponse, error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if s.client.timeout > 0 {
		q.Set("timeout", s.client.timeout.String())
	}
	a, err := s.client.do(ctx, call{method: http.MethodGet, path: strings.TrimSuffix(kvPath, "/"), query: q})
	if err != nil {
		return nil, failed(err, "")
	}
	if a.status != http.StatusOK {
		return nil, refused(a, "")
	}
	var page kvv1.ListKeysResponse
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(a.body, &page); err != nil {
		return nil, &failure{code: ExitError, status: a.status, title: "the answer cannot be read", detail: excerpt(a), hint: hintNotAGateway}
	}
	return &page, nil
}

// keysText is a line for each key.
func (s *session) keysText(keys []*kvv1.ListedKey) (string, error) {
	var b strings.Builder
	for _, k := range keys {
		if !s.json {
			key := k.GetKey()
			if key == "" {
				key = string(k.GetKeyBase64())
			}
			b.WriteString(escapeText(key) + "\n")
			continue
		}
		line := struct {
			Key    string `json:"key,omitempty"`
			Base64 []byte `json:"key_base64,omitempty"`
		}{k.GetKey(), k.GetKeyBase64()}
		text, err := json.Marshal(line)
		if err != nil {
			return "", err
		}
		b.Write(append(text, '\n'))
	}
	return b.String(), nil
}
