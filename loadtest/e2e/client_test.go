package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// client speaks the HTTP API of one gateway. Safe for concurrent use.
type client struct {
	host string
	http *http.Client
}

func newClient(t *testing.T, g *localcluster.Process) *client {
	t.Helper()
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(tr.CloseIdleConnections)
	return &client{host: g.HTTP, http: &http.Client{Transport: tr, Timeout: 70 * time.Second}}
}

// answer is one HTTP answer, whole.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	context string
}

// problem is the part of an RFC 9457 body that tests look at.
type problem struct {
	Type     string `json:"type"`
	Detail   string `json:"detail"`
	Outcome  string `json:"outcome"`
	Replicas []struct {
		Node   string `json:"node"`
		Did    string `json:"did"`
		Detail string `json:"detail"`
	} `json:"replicas"`
}

func (a answer) problem() problem {
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		p.Detail = fmt.Sprintf("not a problem: %v: %.200s", err, a.body)
	}
	return p
}

func (a answer) String() string {
	return fmt.Sprintf("%d %.300s", a.status, a.body)
}

// write is the body of a put's or delete's answer.
type write struct {
	Context  string `json:"context"`
	Siblings int    `json:"siblings"`
	Acks     int    `json:"acks"`
	Hinted   int    `json:"hinted"`
}

// siblings is the body of a 300.
type siblings struct {
	Key      string `json:"key"`
	Context  string `json:"context"`
	Siblings []struct {
		Value     []byte `json:"value"`
		Tombstone bool   `json:"tombstone"`
		ETag      string `json:"etag"`
	} `json:"siblings"`
}

// do sends one request for a key exactly as escaped here: nothing folds dots or doubled slashes.
func (c *client) do(method, key, query string, body []byte, headers ...string) (answer, error) {
	path := "/v1/kv/" + url.PathEscape(key)
	return c.raw(method, path, query, body, headers...)
}

func (c *client) raw(method, path, query string, body []byte, headers ...string) (a answer, err error) {
	req, err := http.NewRequest(method, "http://"+c.host, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.URL.Opaque, req.URL.RawQuery = "//"+c.host+path, query
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	a.status, a.header, a.context = resp.StatusCode, resp.Header, resp.Header.Get("Kv-Context")
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// must is do for tests that cannot go on without an answer, and have the patience for it where the query has no timeout of its own.
func (c *client) must(t *testing.T, method, key, query string, body []byte, headers ...string) answer {
	t.Helper()
	if !strings.Contains(query, "timeout=") {
		query = strings.TrimPrefix(query+"&"+patience, "&")
	}
	a, err := c.do(method, key, query, body, headers...)
	if err != nil {
		t.Fatalf("%s %q: %v", method, key, err)
	}
	return a
}

// want is must with the status it has to have.
func (c *client) want(t *testing.T, status int, method, key, query string, body []byte, headers ...string) answer {
	t.Helper()
	a := c.must(t, method, key, query, body, headers...)
	if a.status != status {
		t.Fatalf("%s %q?%s answers %v, want %d", method, key, query, a, status)
	}
	return a
}

func (a answer) write(t *testing.T) write {
	t.Helper()
	var w write
	if err := json.Unmarshal(a.body, &w); err != nil {
		t.Fatalf("answer of a write: %v: %s", err, a.body)
	}
	return w
}

// values returns what a read shows, tombstones left out: nothing for 404, one value for 200, all for 300.
func (a answer) values() ([][]byte, error) {
	switch a.status {
	case http.StatusNotFound:
		return nil, nil
	case http.StatusOK:
		return [][]byte{a.body}, nil
	case http.StatusMultipleChoices:
		var s siblings
		if err := json.Unmarshal(a.body, &s); err != nil {
			return nil, fmt.Errorf("siblings: %w", err)
		}
		var out [][]byte
		for _, sib := range s.Siblings {
			if !sib.Tombstone {
				out = append(out, sib.Value)
			}
		}
		return out, nil
	}
	return nil, errors.New(a.String())
}

// inspection is the body of /v1/cluster/keys/{key}.
type inspection struct {
	Slot     int `json:"slot"`
	Replicas []struct {
		Name     string     `json:"name"`
		Role     string     `json:"role"`
		State    string     `json:"state"`
		Digest   string     `json:"digest"`
		Clock    []dotJSON  `json:"clock"`
		Siblings []dotValue `json:"siblings"`
	} `json:"replicas"`
}

type dotJSON struct {
	Actor   string `json:"actor"`
	Counter string `json:"counter"`
}

type dotValue struct {
	dotJSON
	ETag      string `json:"etag"`
	Tombstone bool   `json:"tombstone"`
}

func (c *client) inspect(t *testing.T, key string) inspection {
	t.Helper()
	a, err := c.raw(http.MethodGet, "/v1/cluster/keys/"+url.PathEscape(key), "", nil)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("inspect %q: %v %v", key, a, err)
	}
	var in inspection
	if err := json.Unmarshal(a.body, &in); err != nil {
		t.Fatalf("inspect %q: %v: %s", key, err, a.body)
	}
	return in
}

// minter names the primary that mints this key's writes in quiet times: the first of its preference list.
func minter(t *testing.T, c *localcluster.Cluster, in inspection) *localcluster.Process {
	t.Helper()
	for _, p := range c.Nodes {
		if p.Name == in.Replicas[0].Name {
			return p
		}
	}
	t.Fatalf("no node is named %q", in.Replicas[0].Name)
	return nil
}
