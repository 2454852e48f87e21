package kv

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dotring/dotring/storagenode/engine"
)

// metrics of one store. Children are looked up once, since a lookup costs more than the count.
type metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	mints   [resultCount]prometheus.Counter
	applies [resultCount]prometheus.Counter
	hints   [resultCount]prometheus.Counter

	commitSeconds, batchItems, batchBytes prometheus.Histogram
	failures, reopenings, actors, damaged prometheus.Counter
	cacheHits, cacheMisses                prometheus.Counter
	damagedParts, refills, refilled       prometheus.Counter
	rollbacks, pruned                     prometheus.Counter
}

// cached counts a look into the cache.
func (m *metrics) cached(hit bool) {
	if hit {
		m.cacheHits.Inc()
	} else {
		m.cacheMisses.Inc()
	}
}

// result is the closed set of outcomes of mints and applies.
type result int

const (
	resultDone result = iota
	resultRepeated
	resultUnchanged
	resultBehind
	resultTooManySiblings
	resultTooLarge
	resultOverloaded
	resultExpired
	resultInvalid
	resultHintsFull
	resultStale
	resultDiskFull
	resultUnavailable
	resultDamaged
	resultFailed
	resultCount
)

var resultNames = [resultCount]string{
	"done", "repeated", "unchanged", "behind", "too_many_siblings", "too_large", "overloaded", "expired", "invalid",
	"hints_full", "stale", "disk_full", "unavailable", "damaged", "failed",
}

func resultOf(err error) result {
	for _, known := range [...]struct {
		err    error
		result result
	}{
		{ErrBehind, resultBehind}, {ErrTooManySiblings, resultTooManySiblings}, {ErrTooLarge, resultTooLarge},
		{ErrClockTooLarge, resultTooLarge}, {ErrOverloaded, resultOverloaded}, {ErrExpired, resultExpired},
		{ErrInvalid, resultInvalid}, {ErrHintsFull, resultHintsFull}, {ErrStale, resultStale}, {ErrDiskFull, resultDiskFull}, {ErrReopening, resultUnavailable},
		{ErrClosed, resultUnavailable}, {engine.ErrDamaged, resultDamaged},
	} {
		if errors.Is(err, known.err) {
			return known.result
		}
	}
	return resultFailed
}

func newMetrics(reg prometheus.Registerer, s *Store) (*metrics, error) {
	m := &metrics{registerer: reg}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "dotring_kv_" + name, Help: help})
		m.collectors = append(m.collectors, c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "dotring_kv_" + name, Help: help, Buckets: buckets})
		m.collectors = append(m.collectors, h)
		return h
	}
	gauge := func(name, help string, value func() float64) {
		m.collectors = append(m.collectors,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dotring_kv_" + name, Help: help}, value))
	}
	results := func(into *[resultCount]prometheus.Counter, name, help string) {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dotring_kv_" + name, Help: help}, []string{"result"})
		m.collectors = append(m.collectors, v)
		for r := range into {
			into[r] = v.WithLabelValues(resultNames[r])
		}
	}
	results(&m.mints, "mints_total", "Writes that asked for a dot, by what became of them.")
	results(&m.applies, "applies_total", "Records to be merged, by what became of them.")
	results(&m.hints, "hints_total", "Records to be kept for other nodes, by what became of them.")
	m.commitSeconds = histogram("commit_seconds", "Time to write and sync one batch.", prometheus.ExponentialBuckets(1e-4, 2, 16))
	m.batchItems = histogram("commit_items", "Writes in one batch.", prometheus.ExponentialBuckets(1, 2, 13))
	m.batchBytes = histogram("commit_bytes", "Bytes of one batch.", prometheus.ExponentialBuckets(256, 4, 10))
	m.failures = counter("commit_failures_total", "Failures of the engine that put all writes in flight in doubt.")
	m.reopenings = counter("reopenings_total", "Times the engine was opened again after a failure.")
	m.actors = counter("actors_total", "Actors taken.")
	m.cacheHits = counter("cache_hits_total", "Reads, mints and applies that found in memory what they need of the key.")
	m.cacheMisses = counter("cache_misses_total", "Reads, mints and applies that had to ask the engine.")
	m.damaged = counter("damaged_reads_total", "Reads that met damaged data.")
	m.damagedParts = counter("damaged_parts_total", "Parts of the disk that were found damaged and set aside.")
	m.refills = counter("refills_total", "Ranges in doubt that were refilled from other owners.")
	m.pruned = counter("pruned_entries_total", "Entries of actors that live no more that left the clocks of records.")
	m.rollbacks = counter("rollbacks_total", "Times that other nodes remembered more of this disk than was on it.")
	m.refilled = counter("refilled_records_total", "Records that were written by refills.")
	gauge("doubt_slots", "Slots in doubt: neither read nor written until they were refilled.", func() float64 { return float64(s.Doubts().Slots()) })
	gauge("queue_items", "Writes queued or being committed.", func() float64 { return float64(s.queue.items.Load()) })
	gauge("queue_bytes", "Bytes queued or being committed.", func() float64 { return float64(s.queue.bytes.Load()) })
	gauge("keys", "Durable keys, deleted ones included.", func() float64 { return float64(s.keys.Load()) })
	gauge("record_bytes", "Bytes of durable records.", func() float64 { return float64(s.bytes.Load()) })
	gauge("hints", "Durable hints for other nodes.", func() float64 { n, _, _ := s.HintTotals(); return float64(n) })
	gauge("hint_bytes", "Bytes of durable hints, keys included.", func() float64 { _, n, _ := s.HintTotals(); return float64(n) })
	gauge("hint_age_seconds", "Longest that hints have been kept for one node without a break.", func() float64 {
		if _, _, since := s.HintTotals(); !since.IsZero() {
			return max(s.cfg.Now().Sub(since).Seconds(), 0)
		}
		return 0
	})
	gauge("tombstone_marks", "Tombstones that are proven to be needed no more and about to be removed.", func() float64 { return float64(s.Marks()) })
	gauge("disk_full", "1 while writes are refused for lack of room.", func() float64 { return indicator(s.full.Load()) })
	gauge("available", "1 while the engine is open.", func() float64 { return indicator(s.life.Load() != nil) })
	gauge("suspect", "1 if the engine dropped data when it was opened.", func() float64 { return indicator(s.Doubts().Whole) })
	gauge("request_ids", "Request ids remembered.", func() float64 { n, _ := s.requests.count(); return float64(n) })
	m.collectors = append(m.collectors, prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "dotring_kv_request_ids_dropped_total", Help: "Request ids forgotten before their time, for want of room.",
	}, func() float64 { _, n := s.requests.count(); return float64(n) }))
	return m, m.register()
}

func indicator(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

func (m *metrics) register() error {
	if m.registerer == nil {
		return nil
	}
	for i, c := range m.collectors {
		if err := m.registerer.Register(c); err != nil {
			m.collectors = m.collectors[:i]
			m.unregister()
			return fmt.Errorf("kv: registering metrics: %w", err)
		}
	}
	return nil
}

func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}

func (m *metrics) mint(repeated bool, err error) {
	switch {
	case err != nil:
		m.mints[resultOf(err)].Inc()
	case repeated:
		m.mints[resultRepeated].Inc()
	default:
		m.mints[resultDone].Inc()
	}
}

func (m *metrics) apply(outcome applied, err error) {
	switch {
	case err != nil:
		m.applies[resultOf(err)].Inc()
	case outcome == changed:
		m.applies[resultDone].Inc()
	default:
		m.applies[resultUnchanged].Inc()
	}
}

func (m *metrics) hint(unchanged bool, err error) {
	switch {
	case err != nil:
		m.hints[resultOf(err)].Inc()
	case unchanged:
		m.hints[resultUnchanged].Inc()
	default:
		m.hints[resultDone].Inc()
	}
}

func (m *metrics) commit(took time.Duration, items, bytes int) {
	m.commitSeconds.Observe(took.Seconds())
	m.batchItems.Observe(float64(items))
	m.batchBytes.Observe(float64(bytes))
}
