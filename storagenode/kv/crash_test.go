package kv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/dotring/dotring/ringsvc/causal"
	"github.com/dotring/dotring/storagenode/engine/enginetest"
)

// minted is one write of a history.
type minted struct {
	key, value string
	dot        causal.Dot
	rec        causal.Set // as the mint answered
	acked      bool       // its durable callback said nil
}

// history is all writes over all lives of one directory. Safe for concurrent use.
type history struct {
	mu     sync.Mutex
	writes map[causal.Dot]*minted
	acks   int
	reach  map[int]chan struct{} // closed at that many acks
}

func newHistory() *history {
	return &history{writes: map[causal.Dot]*minted{}, reach: map[int]chan struct{}{}}
}

func (h *history) add(t *testing.T, w *minted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.writes[w.dot]; old != nil {
		t.Errorf("dot %s names %q of %s and %q of %s", w.dot, old.value, old.key, w.value, w.key)
	}
	h.writes[w.dot] = w
}

func (h *history) ack(w *minted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w.acked = true
	h.acks++
	if c := h.reach[h.acks]; c != nil {
		close(c)
	}
}

// at returns a channel that is closed with the n-th acknowledgement from now.
func (h *history) at(n int) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan struct{})
	h.reach[h.acks+n] = c
	return c
}

// lost returns the acknowledged writes that s neither shows nor shows to be superseded by a write that covered them.
func (h *history) lost(t *testing.T, s *Store) (lost []*minted) {
	h.mu.Lock()
	defer h.mu.Unlock()
	records := map[string]causal.Set{}
	for _, w := range h.writes {
		if _, known := records[w.key]; known {
			continue
		}
		rec, err := s.Read([]byte(w.key))
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatalf("read of %s: %v", w.key, err)
		}
		records[w.key] = causal.Set{}
		if err == nil {
			records[w.key] = decode(t, w.key, rec)
		}
	}
	for _, w := range h.writes {
		if w.acked && !h.holds(records[w.key], w) {
			lost = append(lost, w)
		}
	}
	return lost
}

func (h *history) holds(set causal.Set, w *minted) bool {
	for _, sib := range set.Siblings {
		if sib.Dot == w.dot {
			return string(sib.Value) == w.value
		}
	}
	// Superseded: a write that s has seen was minted over w.
	for _, o := range h.writes {
		if o != w && o.key == w.key && set.Clock.Covers(o.dot) && o.rec.Clock.Covers(w.dot) &&
			!slices.ContainsFunc(o.rec.Siblings, func(sib causal.Sibling) bool { return sib.Dot == w.dot }) {
			return true
		}
	}
	return false
}

// load mints from n goroutines until stop is closed or the store fails for good.
func load(t *testing.T, s *Store, h *history, n int, seed uint64, life int, stop <-chan struct{}) *sync.WaitGroup {
	var all sync.WaitGroup
	for g := range n {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(life*100+g)))
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				m := write(fmt.Sprint("k", rng.IntN(12)), fmt.Sprintf("life %d, writer %d, write %d", life, g, i))
				if rng.IntN(3) > 0 {
					m.Context = &causal.Context{}
					if rec, err := s.Read(m.Key); err == nil {
						m.Context.Vector = decode(t, string(m.Key), rec).Clock
					}
				}
				w := &minted{key: string(m.Key), value: string(m.Value)}
				known, answered := make(chan struct{}), make(chan struct{})
				out, err := s.Mint(m, func(err error) {
					go func() { // a callback must not wait
						defer close(answered)
						<-known
						if err == nil {
							h.ack(w)
						}
					}()
				})
				if err != nil {
					if errors.Is(err, ErrReopening) || errors.Is(err, ErrTooManySiblings) || errors.Is(err, ErrClockTooLarge) ||
						errors.Is(err, enginetest.ErrPowerOff) {
						continue
					}
					t.Errorf("mint: %v", err)
					return
				}
				w.dot, w.rec = out.Dot, decode(t, w.key, out.Record)
				h.add(t, w)
				close(known)
				if rng.IntN(4) > 0 { // else it has several in flight
					<-answered
				}
			}
		})
	}
	return &all
}

// crashes runs a store through several power cuts at random moments and returns the acknowledged writes that got lost,
// and how many were acknowledged.
func crashes(t *testing.T, mode SyncMode, seed uint64) (lost []*minted, acked int) {
	rng := newRand(seed)
	disk, h := enginetest.NewDisk(), newHistory()
	for life := range 4 {
		s := open(t, onDisk(disk), func(c *Config) { c.Sync, c.BatchMaxItems = mode, 1+rng.IntN(16) })
		if life > 0 {
			if lost = h.lost(t, s); len(lost) > 0 {
				return lost, h.acks
			}
		}
		if mode == SyncAlways && rng.IntN(2) == 0 { // a failed sync or write before the power goes, too
			disk.Inject(&enginetest.Fault{
				Op: []enginetest.Op{enginetest.OpSync, enginetest.OpWrite}[rng.IntN(2)], Types: storage.TypeJournal,
				Skip: rng.IntN(30), Times: 1, Err: enginetest.ErrOffline, Partial: rng.IntN(2) == 0,
			})
		}
		stop := make(chan struct{})
		reached := h.at(1 + rng.IntN(60))
		writers := load(t, s, h, 6, seed, life, stop)
		receive(t, reached)
		cut := disk.Crash(enginetest.CrashMode(rng.IntN(3)), rng)
		if mode != SyncAlways {
			cut = disk.Crash(enginetest.Discard, nil)
		}
		close(stop)
		writers.Wait()
		_ = s.Close() // the power is off: it can only fail
		disk = cut
	}
	s := open(t, onDisk(disk), nil)
	return h.lost(t, s), h.acks
}

func TestPowerCutsLoseNothingAcknowledged(t *testing.T) {
	acked := 0
	for seed := range uint64(25) {
		lost, n := crashes(t, SyncAlways, seed)
		for _, w := range lost {
			t.Errorf("seed %d: lost %q of %s, %s", seed, w.value, w.key, w.dot)
		}
		acked += n
	}
	if acked < 1000 {
		t.Fatalf("only %d writes were acknowledged: too few to prove anything", acked)
	}
}

// The same test sees the loss where there is one: without syncing, a power cut takes acknowledged writes along.
func TestPowerCutsWithoutSyncingLose(t *testing.T) {
	lost := 0
	for seed := range uint64(5) {
		l, _ := crashes(t, SyncNone, seed)
		lost += len(l)
	}
	if lost == 0 {
		t.Fatal("nothing was lost without syncing: the test for loss cannot fail")
	}
}

// With SyncInterval a power cut loses at most what came after the last sync.
func TestSyncInterval(t *testing.T) {
	d := enginetest.NewDisk()
	s := open(t, onDisk(d), func(c *Config) { c.Sync, c.SyncEvery = SyncInterval, time.Millisecond })
	mustMint(t, s, write("k", "v"))
	eventually(t, "a sync", func() bool { return d.Syncs(storage.TypeJournal) > 0 })
	after := open(t, onDisk(d.Crash(enginetest.Discard, nil)), nil)
	mustRead(t, after, "k")
}
