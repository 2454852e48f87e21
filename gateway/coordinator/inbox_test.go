package coordinator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/gateway/nodeclient"
	"github.com/dotring/dotring/ringsvc/record"
)

func (b *inbox) woken() bool {
	select {
	case <-b.wake:
		return true
	default:
		return false
	}
}

// A request is woken once all it has use for is there, or at once by what it must look at, and never misses either.
func TestInboxWakesWhenThereIsSomethingToDo(t *testing.T) {
	good := nodeclient.Answer{Response: &storagev1.Response{Status: storagev1.Status_STATUS_OK, Durable: true}}
	issued := nodeclient.Answer{Response: &storagev1.Response{Status: storagev1.Status_STATUS_OK}}
	absent := nodeclient.Answer{Response: &storagev1.Response{Status: storagev1.Status_STATUS_ABSENT}}
	failed := nodeclient.Answer{Err: nodeclient.ErrLost}
	for name, tt := range map[string]struct {
		plain  func(*storagev1.Response) bool
		want   int
		before []nodeclient.Answer // none of which wakes
		last   nodeclient.Answer
	}{
		"one":                 {plainRead, 1, nil, issued},
		"two reads":           {plainRead, 2, []nodeclient.Answer{issued}, absent},
		"two acks":            {plainWrite, 2, []nodeclient.Answer{good}, good},
		"a dot":               {plainWrite, 2, []nodeclient.Answer{good}, issued},
		"a refusal of a read": {plainRead, 3, []nodeclient.Answer{issued}, nodeclient.Answer{Response: &storagev1.Response{Status: storagev1.Status_STATUS_FENCED}}},
		"a lost answer":       {plainRead, 3, []nodeclient.Answer{absent}, failed},
		"a record for none":   {plainWrite, 3, []nodeclient.Answer{good}, absent},
	} {
		var b inbox
		b.init(tt.plain)
		b.expect(tt.want)
		for _, a := range tt.before {
			if b.put(a); b.woken() {
				t.Errorf("%s: woken by %v", name, a)
			}
		}
		if b.put(tt.last); !b.woken() {
			t.Errorf("%s: not woken", name)
		}
		if got := b.take(nil); len(got) != len(tt.before)+1 {
			t.Errorf("%s: took %v", name, got)
		}
		b.expect(2)
		if b.put(good); b.woken() {
			t.Errorf("%s: what was taken still wakes", name)
		}
		if b.expect(1); !b.woken() {
			t.Errorf("%s: not woken once less is wanted", name)
		}
	}
}

// quiet is a context that tells a deadline and never ends.
type quiet struct {
	context.Context
	at time.Time
}

func (q quiet) Deadline() (time.Time, bool) { return q.at, true }

// Every request ends at its deadline, also where its context does not.
func TestDeadlineOfAContextThatDoesNotEnd(t *testing.T) {
	for _, limit := range []time.Duration{0, 3 * time.Millisecond, 1234 * time.Millisecond} {
		play(t, 3, 3, 2, func(t *testing.T, s *scene) {
			for _, n := range s.order {
				n.meddle = func(*storagev1.Request) *meddling { return &meddling{silent: true} }
			}
			begin := time.Now()
			ctx := quiet{s.ctx, begin.Add(limit)}
			var all sync.WaitGroup
			ended := func(err error, outcome Outcome) {
				if e := wantError(t, err, DeadlinePassed, outcome); !errors.Is(e, context.DeadlineExceeded) {
					t.Errorf("error is %v", e)
				}
				if took := time.Since(begin); took != limit {
					t.Errorf("took %s, the deadline is after %s", took, limit)
				}
			}
			for range 5 { // some wait for others' fetches
				all.Go(func() {
					_, err := s.co.Get(ctx, GetRequest{Key: []byte(testKey)})
					ended(err, None)
				})
			}
			for _, explain := range []bool{false, true} {
				all.Go(func() {
					_, err := s.co.Put(ctx, PutRequest{Key: []byte(testKey), Value: []byte("v"), Checksum: record.Checksum([]byte("v")), Explain: explain})
					ended(err, InDoubt)
				})
			}
			all.Wait()
		})
	}
}

// Answers that were not worth waking for are looked at when the time for something else has come.
func TestPatienceEnds(t *testing.T) {
	play(t, 5, 3, 2, func(t *testing.T, s *scene) {
		o := s.owners(testKey)
		put := func() time.Duration {
			begin := time.Now()
			res, err := s.co.Put(s.ctx, PutRequest{Key: []byte(testKey), Value: []byte("v"), Checksum: record.Checksum([]byte("v")), W: All, Sloppy: true})
			if err != nil || res.Acks != 3 {
				t.Fatalf("%+v, %v", res, err)
			}
			return time.Since(begin)
		}
		if took := put(); took > 10*time.Millisecond {
			t.Errorf("took %s", took)
		}
		s.lock(func() { o[2].meddle = func(*storagev1.Request) *meddling { return &meddling{silent: true} } })
		if took := put(); took < 400*time.Millisecond || took > 450*time.Millisecond {
			t.Errorf("with a stand-in it took %s", took)
		}
		// A read goes on to another replica as soon as the one that is waited for is late.
		s.lock(func() { o[2].meddle, o[0].meddle = nil, o[2].meddle })
		elapse(10 * time.Second)
		for range 20 {
			begin := time.Now()
			if _, err := s.co.Get(s.ctx, GetRequest{Key: []byte(testKey)}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 50*time.Millisecond {
				t.Fatalf("a read beside a silent replica took %s", took)
			}
		}
	})
}
