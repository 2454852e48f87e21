package chaos

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/dotring/dotring/loadtest/history"
	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/ringsvc/record"
)

// written is a write that a client has begun.
type written struct {
	w    *history.Write
	seen history.Known
}

// recorder keeps the history of a run: in the checker that judges it, and line by line in a file for people. Safe for
// concurrent use.
type recorder struct {
	began   time.Time
	keyring causal.Keyring
	cluster [16]byte

	mu      sync.Mutex
	check   *history.Checker
	dots    map[causal.Dot]bool
	values  map[string]*written // by value: no two are alike
	deletes map[string]*written // by key: one each, so that a tombstone's dot names its write
	wipes   int                 // disks lost so far
	out     *bufio.Writer
	file    *os.File
	err     error // of the file, the first
}

// newRecorder writes the history to path. keyFile holds the cluster's context key in hex.
func newRecorder(path, keyFile, cluster string) (*recorder, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the context key: %w", err)
	}
	if len(text) < 64 {
		return nil, fmt.Errorf("read the context key: %s is too short", keyFile)
	}
	key, err := hex.DecodeString(string(text[:64]))
	if err != nil {
		return nil, fmt.Errorf("read the context key: %w", err)
	}
	r := &recorder{began: time.Now(), dots: make(map[causal.Dot]bool), values: make(map[string]*written), deletes: make(map[string]*written)}
	if r.keyring, err = causal.NewKeyring(key); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(cluster)
	if err != nil || len(id) != len(r.cluster) {
		return nil, fmt.Errorf("the cluster's id %q is not 32 hexadecimal digits", cluster)
	}
	copy(r.cluster[:], id)
	r.check = history.New(r.now)
	if r.file, err = os.Create(path); err != nil {
		return nil, fmt.Errorf("create the history: %w", err)
	}
	r.out = bufio.NewWriterSize(r.file, 1<<16)
	return r, nil
}

func (r *recorder) now() time.Duration { return time.Since(r.began) }

// entry is one line of the history's file.
type entry struct {
	At      float64  `json:"at"` // seconds since the run began
	Client  int      `json:"client"`
	Op      string   `json:"op"` // "put", "delete", "get" and what was answered: "acked", "failed", "read"; "fault"
	Key     string   `json:"key,omitempty"`
	Write   int      `json:"write,omitempty"`
	Outcome string   `json:"outcome,omitempty"`
	Acks    int      `json:"acks,omitempty"`
	Dots    []string `json:"dots,omitempty"` // of the siblings shown, or of the write
	Context string   `json:"context,omitempty"`
	Detail  string   `json:"detail,omitempty"`
}

// line appends to the file. The caller holds mu.
func (r *recorder) line(e entry) {
	e.At = r.now().Seconds()
	b, err := json.Marshal(e)
	if err == nil {
		_, err = r.out.Write(append(b, '\n'))
	}
	if err != nil && r.err == nil {
		r.err = err
	}
}

// note writes what is no client's doing.
func (r *recorder) note(op, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line(entry{Client: -1, Op: op, Detail: detail})
}

// diskLost weakens what was acknowledged so far: one machine of each write's may have forgotten it.
func (r *recorder) diskLost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wipes++
	r.check.DiskLost()
}

// mayDelete says whether a key can be deleted: only once in its life, since tombstones are all alike.
func (r *recorder) mayDelete(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deletes[key] == nil
}

// begin notes a write. value is nil for a deletion.
func (r *recorder) begin(client int, key string, value []byte, seen history.Known, token string) (w *written, wipes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w = &written{r.check.Begin(key, value, value == nil), seen}
	op := "put"
	if value == nil {
		op, r.deletes[key] = "delete", w
	} else {
		r.values[string(value)] = w
	}
	r.line(entry{Client: client, Op: op, Key: key, Write: w.w.ID, Context: token})
	return w, r.wipes
}

// failed notes that a write failed.
func (r *recorder) failed(client int, w *written, o history.Outcome, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check.Failed(w.w, o)
	name := "in-doubt"
	if o == history.NotApplied {
		name = "not-applied"
	}
	r.line(entry{Client: client, Op: "failed", Key: w.w.Key, Write: w.w.ID, Outcome: name, Detail: detail})
}

// acked notes that a write was acknowledged, and returns what its client has seen then. Of acks machines hinted are stand-ins;
// wipes is what begin told.
func (r *recorder) acked(client int, w *written, token string, acks, hinted, wipes int) (history.Known, error) {
	ctx, err := r.keyring.DecodeToken(r.cluster, []byte(w.w.Key), token)
	if err != nil {
		return history.Known{}, err
	}
	if len(ctx.Dots) != 1 {
		return history.Known{}, fmt.Errorf("the context of an acknowledgement has %d dots, want the write's", len(ctx.Dots))
	}
	dot := ctx.Dots[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.name(w, dot)
	// Stand-ins are in no quorum of reads, and a machine may have lost its disk since it acknowledged.
	lost := r.wipes - wipes
	r.check.Acked(w.w, dot, acks-hinted-lost, acks-lost < 1)
	r.line(entry{Client: client, Op: "acked", Key: w.w.Key, Write: w.w.ID, Acks: acks, Dots: []string{dot.String()}, Context: token})
	return r.check.After(w.w.Key, w.seen, dot), nil
}

// name tells the checker of a dot when it is first heard of. The caller holds mu.
func (r *recorder) name(w *written, dot causal.Dot) {
	if !r.dots[dot] {
		r.dots[dot] = true
		r.check.Minted(w.w, dot, w.seen)
	}
}

// reading notes that a get begins.
func (r *recorder) reading(key string, seen *history.Known) *history.Get {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.check.Reading(key, 2, 3, seen)
}

// read judges what a get was answered, and returns what its client has seen then.
func (r *recorder) read(client int, key string, g *history.Get, token string, siblings []causal.Sibling) (history.Known, error) {
	ctx, err := r.keyring.DecodeToken(r.cluster, []byte(key), token)
	if err != nil {
		return history.Known{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.meet(key, siblings)
	e := entry{Client: client, Op: "read", Key: key, Context: token}
	for _, s := range siblings {
		e.Dots = append(e.Dots, s.Dot.String())
	}
	r.line(e)
	return r.check.Answered(g, causal.Set{Clock: ctx.Vector, Siblings: siblings}, fmt.Sprintf("get of client %d", client)), nil
}

// meet names the dots of writes whose clients were not told them, or not yet. The caller holds mu.
func (r *recorder) meet(key string, siblings []causal.Sibling) {
	for i := range siblings {
		s := &siblings[i]
		w := r.values[string(s.Value)]
		if s.Tombstone {
			w = r.deletes[key]
		}
		if w != nil && w.w.Key == key {
			r.name(w, s.Dot)
		}
	}
}

// final judges a key's replicas.
func (r *recorder) final(key string, replicas []history.Replica) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range replicas {
		if p.Record == nil || record.Verify([]byte(key), p.Record) != nil {
			continue // what is damaged the checker reports
		}
		if set, err := record.Decode([]byte(key), p.Record); err == nil {
			r.meet(key, set.Siblings)
		}
	}
	r.check.Final(key, replicas)
}

// close ends the history; the file is whole then.
func (r *recorder) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.out.Flush(), r.file.Close())
}

// broken notes an answer that makes no sense.
func (r *recorder) broken(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check.Break(history.Faithful, "%s", what)
}

// parseDot reads a dot as the API shows it.
func parseDot(actor, counter string) (d causal.Dot, err error) {
	b, err := hex.DecodeString(actor)
	if err != nil || len(b) != len(d.Actor) {
		return d, fmt.Errorf("the actor %q is not 32 hexadecimal digits", actor)
	}
	copy(d.Actor[:], b)
	if d.Counter, err = strconv.ParseUint(counter, 10, 64); err != nil {
		return d, fmt.Errorf("the counter %q is no number", counter)
	}
	return d, nil
}
