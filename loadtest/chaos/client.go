package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

const (
	// perKey is how many operations a key sees before a fresh one takes its place, so that neither its clock nor its
	// history grows without end.
	perKey = 400
	// liveKeys is how many keys are in use at a time.
	liveKeys = 256
	// goodTime is how long a request may take to count as served.
	goodTime = time.Second
	// hangTime is when a request counts as hanging: gateways answer within their deadline of 2 s, dead ones not at all.
	hangTime = 8 * time.Second
)

// keyspace hands out keys. Safe for concurrent use.
type keyspace struct {
	prefix string
	used   [liveKeys]atomic.Int64
}

// pick returns a key, and a number of the place that it has among those in use.
func (k *keyspace) pick(rnd *rand.Rand) (name string, place int) {
	place = rnd.IntN(liveKeys)
	n := k.used[place].Add(1)
	return fmt.Sprintf("%s-%d-%d", k.prefix, place, n/perKey), place
}

// knowledge is what a client has seen of one key.
type knowledge struct {
	key   string
	token string
	seen  history.Known
}

// client does one operation after the other, as often as its interval says.
type client struct {
	id       int
	keys     *keyspace
	sets     *sets // nil where the history is judged
	rec      *recorder
	tally    *timeline
	http     *http.Client
	gateways []string // host:port
	at       int      // the gateway it uses
	rnd      *rand.Rand
	interval time.Duration
	known    [liveKeys]knowledge
	writes   int
	broken   bool // whether a gateway broke off the latest request, before another was asked
}

// run works until ctx ends. Operations under way are finished.
func (c *client) run(ctx context.Context) {
	next := time.Now().Add(rand.N(c.interval))
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next = next.Add(c.operate(context.WithoutCancel(ctx)))
		if late := time.Since(next); late > time.Second {
			next = next.Add(late) // what could not be asked in time is not made up for in a burst
		}
		timer.Reset(time.Until(next))
	}
}

// operate does one operation, or a read and a write of the same key, and returns the time that this is to fill.
func (c *client) operate(ctx context.Context) time.Duration {
	key, place := c.keys.pick(c.rnd)
	if c.sets != nil {
		c.sets.add(ctx, c, key)
		return 2 * c.interval
	}
	k := &c.known[place]
	if k.key != key {
		*k = knowledge{key: key}
	}
	switch p := c.rnd.Float64(); {
	case p < 0.4:
		if c.get(ctx, k, false) {
			c.put(ctx, k)
			return 2 * c.interval
		}
	case p < 0.55 && k.token != "": // with what was seen some time ago
		c.put(ctx, k)
	default:
		c.get(ctx, k, c.rnd.Float64() < 0.5)
	}
	return c.interval
}

// answer is one HTTP answer, whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send asks a gateway; where that one refuses the connection or breaks it off, another one, as a balancer does.
func (c *client) send(ctx context.Context, method, key, query string, body []byte, headers ...string) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, hangTime)
	defer cancel()
	c.broken = false
	for range c.gateways {
		a, err = c.once(ctx, method, "http://"+c.gateways[c.at]+"/v1/kv/"+key+query, body, headers)
		if err == nil || ctx.Err() != nil {
			return a, err
		}
		c.at, c.broken = (c.at+1)%len(c.gateways), true
	}
	return a, err
}

func (c *client) once(ctx context.Context, method, url string, body []byte, headers []string) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// problem is the part of an RFC 9457 body that matters here.
type problem struct {
	Type     string `json:"type"`
	Outcome  string `json:"outcome"`
	Replicas []struct {
		Node   string `json:"node"`
		Did    string `json:"did"`
		Detail string `json:"detail"`
	} `json:"replicas"`
}

// describe says in a line why a request failed, and what a write's outcome is.
func describe(a answer, err error) (why, detail string, outcome history.Outcome) {
	if err != nil {
		return "no answer", err.Error(), history.InDoubt
	}
	var p problem
	if json.Unmarshal(a.body, &p) != nil {
		return strconv.Itoa(a.status), string(a.body), history.InDoubt
	}
	why = fmt.Sprintf("%d %s", a.status, p.Type[bytes.LastIndexByte([]byte(p.Type), '/')+1:])
	outcome = history.InDoubt
	if p.Outcome != "" {
		why += " " + p.Outcome
	}
	if p.Outcome == "not-applied" {
		outcome = history.NotApplied
	}
	for _, r := range p.Replicas {
		detail += fmt.Sprintf("%s %s %s; ", r.Node, r.Did, r.Detail)
	}
	return why, detail, outcome
}

// get reads a key, with the context of what was seen of it or without.
func (c *client) get(ctx context.Context, k *knowledge, own bool) bool {
	var headers []string
	var seen *history.Known
	if own && k.token != "" {
		headers, seen = []string{"Kv-Context", k.token}, &k.seen
	}
	g := c.rec.reading(k.key, seen)
	began := time.Now()
	a, err := c.send(ctx, http.MethodGet, k.key, "?explain=1", nil, headers...)
	took := time.Since(began)
	if err != nil || a.status != 200 && a.status != 300 && a.status != 404 {
		why, detail, _ := describe(a, err)
		c.tally.failed("get", why, detail, took)
		c.rec.note("get failed", k.key+": "+why+": "+detail)
		return false
	}
	c.tally.served(took)
	siblings, ok, err := siblingsOf(a)
	if err != nil {
		c.rec.broken(fmt.Sprintf("get of %s: %v", k.key, err))
		return false
	}
	token := a.header.Get("Kv-Context")
	if !ok {
		return false // it shows too much for a header; the write that follows would not know what it replaces
	}
	known, err := c.rec.read(c.id, k.key, g, token, siblings)
	if err != nil {
		c.rec.broken(fmt.Sprintf("get of %s: %v", k.key, err))
		return false
	}
	k.token, k.seen = token, known
	return true
}

// siblingsOf returns what a read shows, with the dots that explain=1 adds; ok is false where those had no room.
func siblingsOf(a answer) (out []causal.Sibling, ok bool, err error) {
	var e struct {
		Siblings []struct {
			Actor, Counter, ETag string
			Tombstone            bool
		} `json:"siblings"`
		Omitted []string `json:"omitted"`
	}
	if err := json.Unmarshal([]byte(a.header.Get("Kv-Explain")), &e); err != nil {
		return nil, false, fmt.Errorf("explanation: %w", err)
	}
	values, err := valuesOf(a)
	if err != nil {
		return nil, false, err
	}
	for _, o := range e.Omitted {
		if o == "siblings" {
			return nil, false, nil
		}
	}
	for _, s := range e.Siblings {
		var sib causal.Sibling
		if sib.Dot, err = parseDot(s.Actor, s.Counter); err != nil {
			return nil, false, err
		}
		sib.Tombstone = s.Tombstone
		if !s.Tombstone {
			value, found := values[s.ETag]
			if !found {
				return nil, false, fmt.Errorf("sibling %s with tag %s is not in the body", sib.Dot, s.ETag)
			}
			sib.Value = value
		}
		sib.Checksum = record.Checksum(sib.Value)
		out = append(out, sib)
	}
	return out, true, nil
}

// valuesOf returns the values of an answer by their tags, without quotes.
func valuesOf(a answer) (map[string][]byte, error) {
	switch a.status {
	case http.StatusOK:
		tag := a.header.Get("ETag")
		return map[string][]byte{tag[1 : len(tag)-1]: a.body}, nil
	case http.StatusMultipleChoices:
		var s struct {
			Siblings []struct {
				Value []byte `json:"value"`
				ETag  string `json:"etag"`
			} `json:"siblings"`
		}
		if err := json.Unmarshal(a.body, &s); err != nil {
			return nil, fmt.Errorf("siblings: %w", err)
		}
		out := make(map[string][]byte, len(s.Siblings))
		for _, sib := range s.Siblings {
			out[sib.ETag] = sib.Value
		}
		return out, nil
	}
	return nil, nil
}

// put writes a key, or deletes it, with the context of what was seen of it.
func (c *client) put(ctx context.Context, k *knowledge) {
	c.writes++
	method := http.MethodPut
	value := fmt.Appendf(nil, "client %d write %d of %s ", c.id, c.writes, k.key)
	if c.rnd.IntN(200) == 0 && c.rec.mayDelete(k.key) {
		method, value = http.MethodDelete, nil
	} else {
		value = append(value, bytes.Repeat([]byte{'.'}, c.rnd.IntN(1000))...)
	}
	w, wipes := c.rec.begin(c.id, k.key, value, k.seen, k.token)
	began := time.Now()
	a, err := c.send(ctx, method, k.key, "", value, "Kv-Context", k.token, "Kv-Request-Id", fmt.Sprintf("%s-c%d-%d", c.keys.prefix, c.id, c.writes))
	took := time.Since(began)
	if err != nil || a.status != http.StatusOK {
		why, detail, outcome := describe(a, err)
		if c.broken {
			outcome = history.InDoubt // the first gateway may have done it
		}
		c.tally.failed("put", why, detail, took)
		c.rec.failed(c.id, w, outcome, why+": "+detail)
		return
	}
	c.tally.served(took)
	var done struct{ Acks, Hinted int }
	token := a.header.Get("Kv-Context")
	if err = json.Unmarshal(a.body, &done); err == nil {
		k.seen, err = c.rec.acked(c.id, w, token, done.Acks, done.Hinted, wipes)
		k.token = token
	}
	if err != nil {
		c.rec.broken(fmt.Sprintf("put of %s: %v", k.key, err))
	}
}
