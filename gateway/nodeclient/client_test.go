package nodeclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/ringsvc/record"
	"github.com/dotring/dotring/ringsvc/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLearnsAndConnects(t *testing.T) {
	play(t, 3, nil, func(t *testing.T, s *scene) {
		st := s.client.State()
		if st == nil || st.Cluster != testCluster || len(st.Live) != 1 || st.Live[0].ID() != s.view.Settled().ID() ||
			st.Read != st.Live[0] || len(st.Names) != 1 || st.Names[0].Epoch != st.Read.ID().Epoch || st.Name(nodeID(1)) != "b" {
			t.Fatalf("state is %+v", st)
		}
		for i := range 3 {
			if h := s.client.Health(nodeID(i)); !h.Connected || h.Suspect {
				t.Fatalf("health of %d is %+v", i, h)
			}
			n, err := s.client.GetNode(t.Context(), nodeID(i))
			if err != nil || n.GetName() != s.node(i).name {
				t.Fatalf("node %d is %v, %v", i, n, err)
			}
		}
		if h := s.client.Health(nodeID(9)); h != (Health{}) {
			t.Fatalf("health of a stranger is %+v", h)
		}
		if _, err := s.client.GetNode(t.Context(), nodeID(9)); !errors.Is(err, ErrNotConnected) {
			t.Fatalf("a stranger is known: %v", err)
		}
		select {
		case <-s.client.Changed():
		default:
			t.Fatal("the change of state was not told")
		}
	})
}

func TestCallsAreAnswered(t *testing.T) {
	for _, streams := range []int{1, 3} {
		play(t, 2, func(c *Config, _ *fakeNet) { c.StreamsPerNode = streams }, func(t *testing.T, s *scene) {
			var outs []chan Answer
			for i := range 600 {
				outs = append(outs, s.call(i%2, readOf(fmt.Sprintf("key %d", i)), time.Second))
			}
			for i, out := range outs {
				a := <-out
				if a.Err != nil || a.From != nodeID(i%2) || a.Tag != 42 || string(a.Response.GetRecord()) != fmt.Sprintf("key %d", i) {
					t.Fatalf("call %d: %+v", i, a)
				}
			}
			got, frames := s.node(0).received()
			if len(got) != 300 || frames >= 300 {
				t.Fatalf("%d requests in %d frames", len(got), frames)
			}
			if r := got[0]; r.TimeoutMs == 0 || r.TimeoutMs > 1000 || r.Id == 0 {
				t.Fatalf("request %+v", r)
			}
			if n := s.node(0).greeted(); n != streams {
				t.Fatalf("%d streams", n)
			}
			if h := s.client.Health(nodeID(0)); h.Mean == 0 || h.P95 == 0 {
				t.Fatalf("no latency is known: %+v", h)
			}
		})
	}
}

// TestMintIsAnsweredTwice: issued, then durable; and once where it was durable at once, or refused.
func TestMintIsAnsweredTwice(t *testing.T) {
	play(t, 1, nil, func(t *testing.T, s *scene) {
		s.node(0).set(func() {
			s.node(0).serve = func(f *storagev1.Frame, answer func(...*storagev1.Response)) {
				for _, r := range f.Requests {
					ok := func(durable bool) *storagev1.Response {
						return &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK, Durable: durable}
					}
					switch string(r.Key) {
					case "twice":
						answer(ok(false))
						answer(ok(true))
						answer(ok(true)) // one too many
					case "fails":
						answer(ok(false), &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_FAILED})
					case "once":
						answer(ok(true))
					case "refused":
						answer(&storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_BEHIND})
					}
				}
			}
		})
		for key, want := range map[string]int{"twice": 2, "fails": 2, "once": 1, "refused": 1} {
			out := s.call(0, &storagev1.Request{Op: storagev1.Op_OP_MINT, Key: []byte(key)}, time.Second)
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if len(out) != want {
				t.Fatalf("%s: %d answers, want %d", key, len(out), want)
			}
		}
		// A stream that breaks between the two: the second is lost.
		s.node(0).set(func() {
			s.node(0).serve = func(f *storagev1.Frame, answer func(...*storagev1.Response)) {
				for _, r := range f.Requests {
					answer(&storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK})
				}
			}
		})
		out := s.call(0, &storagev1.Request{Op: storagev1.Op_OP_MINT, Key: []byte("k")}, time.Second)
		if a := <-out; a.Err != nil {
			t.Fatal(a.Err)
		}
		s.node(0).breakStreams()
		wantErr(t, <-out, ErrLost)
	})
}

// TestValuesAreHeldUntilTheyAreCopied: whatever becomes of calls, their bytes are whole where they arrive, and their owner gets
// them back once, though it writes over them at once. Under the race detector this shows also what is read and not sent.
func TestValuesAreHeldUntilTheyAreCopied(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	play(t, 2, func(c *Config, _ *fakeNet) { c.QueueItems, c.QueueBytes = 64, 256<<10 }, func(t *testing.T, s *scene) {
		arrived, damaged := 0, 0
		for i := range 2 {
			n := s.node(i)
			n.serve = func(f *storagev1.Frame, answer func(...*storagev1.Response)) {
				var out []*storagev1.Response
				n.set(func() { n.frames = nil })
				s.node(0).mu.Lock()
				defer s.node(0).mu.Unlock()
				for _, r := range f.Requests {
					arrived++
					if record.Checksum(r.Value) != r.Checksum {
						damaged++
					}
					switch r.Checksum % 8 {
					case 0: // no answer
					case 1: // a dot, and no more
						out = append(out, &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK})
					case 2:
						out = append(out, &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_BEHIND})
					default:
						out = append(out, &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK}, &storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK, Durable: true})
					}
				}
				go answer(out...)
			}
		}
		var sent atomic.Int64
		outcomes := make(map[string]int)
		var mu sync.Mutex
		for range 300 {
			for range rng.IntN(40) {
				value := make([]byte, rng.IntN(20_000))
				for i := range value {
					value[i] = byte(rng.Uint32())
				}
				sent.Add(1)
				s.send(Call{To: nodeID(rng.IntN(3)), Layouts: s.client.State().Names, Deadline: time.Now().Add(time.Duration(rng.IntN(30)) * time.Millisecond),
					Request: &storagev1.Request{Op: storagev1.Op_OP_MINT, Key: []byte("k"), Value: value, Checksum: record.Checksum(value)},
					Deliver: func(a Answer) {
						mu.Lock()
						defer mu.Unlock()
						if a.Err != nil {
							outcomes[a.Err.Error()]++
						}
					}})
			}
			if rng.IntN(10) == 0 {
				s.node(rng.IntN(2)).breakStreams()
			}
			if rng.IntN(3) == 0 {
				time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		s.node(0).set(func() {
			if damaged > 0 || arrived < 500 {
				t.Errorf("%d of %d values were damaged", damaged, arrived)
			}
		})
		mu.Lock()
		defer mu.Unlock()
		for _, e := range []error{ErrNotConnected, ErrLost, ErrTooLate} {
			if outcomes[e.Error()] == 0 {
				t.Errorf("no call ended with %q: %v of %d", e, outcomes, sent.Load())
			}
		}
	})
}

// TestFramesAreSplitByLayouts: calls that were made under different live layouts never share a frame.
func TestFramesAreSplitByLayouts(t *testing.T) {
	play(t, 1, nil, func(t *testing.T, s *scene) {
		state := s.client.State()
		equal := []*storagev1.LayoutName{{Epoch: state.Names[0].Epoch, Hash: state.Names[0].Hash}}
		other := append([]*storagev1.LayoutName{{Epoch: 7, Hash: make([]byte, 16)}}, state.Names...)
		out := make(chan Answer, 100)
		for i := range 100 {
			layouts := [][]*storagev1.LayoutName{state.Names, equal, other}[i%3]
			s.send(Call{To: nodeID(0), Request: readOf(fmt.Sprint(i)), Layouts: layouts, Deadline: time.Now().Add(time.Second),
				Deliver: func(a Answer) { out <- a }})
		}
		for range 100 {
			if a := <-out; a.Err != nil {
				t.Fatal(a.Err)
			}
		}
		s.node(0).set(func() {
			for _, f := range s.node(0).frames {
				for _, r := range f.Requests {
					want := 1
					if strings.HasSuffix(fmt.Sprint(mustAtoi(t, string(r.Key))%3), "2") {
						want = 2
					}
					if len(f.Layouts) != want {
						t.Fatalf("request %s travelled under %d layouts, want %d", r.Key, len(f.Layouts), want)
					}
				}
			}
		})
	})
}

func mustAtoi(t *testing.T, s string) (n int) {
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStreamBreaks: what was never taken from the queue was not sent; all else may have been done.
func TestStreamBreaks(t *testing.T) {
	play(t, 1, func(_ *Config, n *fakeNet) { n.node(0).deaf = true }, func(t *testing.T, s *scene) {
		var outs []chan Answer
		for range 20 { // the node does not read, so that flow control stops the sender within the first frames
			r := readOf("k")
			r.Op, r.Record = storagev1.Op_OP_APPLY, make([]byte, 200<<10)
			outs = append(outs, s.call(0, r, time.Minute))
			synctest.Wait()
		}
		s.node(0).breakStreams()
		lost, notSent := 0, 0
		for i, out := range outs {
			switch a := <-out; {
			case errors.Is(a.Err, ErrLost) && !errors.Is(a.Err, ErrNotSent):
				if lost++; notSent > 0 {
					t.Fatalf("call %d is lost, though earlier ones were not sent", i)
				}
			case errors.Is(a.Err, ErrNotSent):
				notSent++
			default:
				t.Fatalf("call %d: %+v", i, a)
			}
		}
		if lost == 0 || notSent == 0 {
			t.Fatalf("%d lost, %d not sent", lost, notSent)
		}
		if s.client.Health(nodeID(0)).Connected {
			t.Fatal("still connected")
		}
		wantErr(t, <-s.call(0, readOf("k"), time.Second), ErrNotConnected)
		s.node(0).set(func() { s.node(0).deaf = false })
		time.Sleep(time.Second)
		if a := <-s.call(0, readOf("k"), time.Second); a.Err != nil {
			t.Fatalf("after the stream was opened again: %v", a.Err)
		}
	})
}

func TestFullQueueRefusesAtOnce(t *testing.T) {
	play(t, 1, func(c *Config, n *fakeNet) { n.node(0).deaf = true; c.QueueItems = 5 }, func(t *testing.T, s *scene) {
		overloaded := 0
		var outs []chan Answer
		for range 20 {
			r := readOf("k")
			r.Op, r.Record = storagev1.Op_OP_APPLY, make([]byte, 200<<10)
			out := s.call(0, r, time.Second)
			synctest.Wait()
			select {
			case a := <-out:
				wantErr(t, a, ErrOverloaded)
				wantErr(t, a, ErrNotSent)
				overloaded++
			default:
				outs = append(outs, out)
			}
		}
		if overloaded == 0 || len(outs) < 6 {
			t.Fatalf("%d refused, %d queued, with room for 5", overloaded, len(outs))
		}
		// The deadline answers what is stuck.
		late := 0
		for _, out := range outs {
			if a := <-out; errors.Is(a.Err, ErrTooLate) {
				late++
			} else {
				wantErr(t, a, ErrUnanswered)
			}
		}
		if late != 5 {
			t.Fatalf("%d were never sent, want those in the queue: 5", late)
		}
	})
}

func TestDeadlineIsSwept(t *testing.T) {
	play(t, 1, nil, func(t *testing.T, s *scene) {
		late := make(chan func(), 1)
		s.node(0).set(func() {
			s.node(0).serve = func(f *storagev1.Frame, answer func(...*storagev1.Response)) {
				for _, r := range f.Requests {
					late <- func() { answer(&storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK}) }
				}
			}
		})
		begin := time.Now()
		out := s.call(0, readOf("k"), 50*time.Millisecond)
		wantErr(t, <-out, ErrUnanswered)
		if took := time.Since(begin); took < 50*time.Millisecond || took > 350*time.Millisecond {
			t.Fatalf("answered after %s", took)
		}
		(<-late)()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if len(out) != 0 {
			t.Fatal("answered twice")
		}
		wantErr(t, <-s.call(0, readOf("k"), -time.Second), ErrTooLate)
	})
}

func TestHeartbeats(t *testing.T) {
	play(t, 1, nil, func(t *testing.T, s *scene) {
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s.node(0).set(func() {
			frames := s.node(0).frames
			if n := len(frames); n < 35 || n > 45 {
				t.Fatalf("%d frames in 10 s without a call", n)
			}
			for i, f := range frames[1:] {
				if f.Heartbeat <= frames[i].Heartbeat {
					t.Fatalf("heartbeat %d follows %d", f.Heartbeat, frames[i].Heartbeat)
				}
			}
		})
	})
}

func TestSilentNodeBecomesSuspect(t *testing.T) {
	play(t, 2, nil, func(t *testing.T, s *scene) {
		time.Sleep(5 * time.Second)
		s.node(1).set(func() { s.node(1).mute = true })
		begin := time.Now()
		for !s.client.Health(nodeID(1)).Suspect {
			if time.Since(begin) > 2*time.Second {
				t.Fatalf("not suspect after %s: %+v", time.Since(begin), s.client.Health(nodeID(1)))
			}
			time.Sleep(10 * time.Millisecond)
		}
		if h := s.client.Health(nodeID(1)); !h.Connected || h.Phi < 8 {
			t.Fatalf("%+v", h)
		}
		if s.client.Health(nodeID(0)).Suspect {
			t.Fatal("the other is suspect too")
		}
		if a := <-s.call(1, readOf("k"), time.Second); a.Err != nil {
			t.Fatal(a.Err)
		}
		if s.client.Health(nodeID(1)).Suspect {
			t.Fatal("an answer does not clear the suspicion")
		}
	})
}

// A node that owes the answer to a read is silent long before it is suspect; one that owes a sync is not, nor one that is heard.
func TestOwedAnswersAreMissedSoon(t *testing.T) {
	play(t, 1, nil, func(t *testing.T, s *scene) {
		time.Sleep(5 * time.Second)
		var answers atomic.Bool
		s.node(0).set(func() {
			s.node(0).mute = true
			s.node(0).serve = func(f *storagev1.Frame, answer func(...*storagev1.Response)) {
				for _, r := range f.Requests {
					if answers.Load() {
						answer(&storagev1.Response{Id: r.Id, Status: storagev1.Status_STATUS_OK})
					}
				}
			}
		})
		apply := readOf("k")
		apply.Op = storagev1.Op_OP_APPLY
		s.call(0, apply, time.Second)
		time.Sleep(80 * time.Millisecond)
		if h := s.client.Health(nodeID(0)); h.Silent {
			t.Fatal("silent while a sync may take long")
		}
		s.call(0, readOf("k"), time.Second)
		time.Sleep(30 * time.Millisecond)
		if h := s.client.Health(nodeID(0)); h.Silent {
			t.Fatal("silent after 30 ms")
		}
		time.Sleep(30 * time.Millisecond)
		if h := s.client.Health(nodeID(0)); !h.Silent || h.Suspect || !h.Connected {
			t.Fatalf("%+v after 60 ms", h)
		}
		answers.Store(true)
		if a := <-s.call(0, readOf("k"), time.Second); a.Err != nil {
			t.Fatal(a.Err)
		}
		if h := s.client.Health(nodeID(0)); h.Silent {
			t.Fatal("silent though it answers")
		}
	})
}

func TestRefusedConnectionCountsAtOnce(t *testing.T) {
	play(t, 2, nil, func(t *testing.T, s *scene) {
		s.node(1).stop()
		time.Sleep(200 * time.Millisecond)
		if h := s.client.Health(nodeID(1)); h.Connected || !h.Suspect {
			t.Fatalf("%+v after its process ended", h)
		}
		s.node(1).start()
		time.Sleep(3 * time.Second)
		if h := s.client.Health(nodeID(1)); !h.Connected || h.Suspect {
			t.Fatalf("%+v after it came back", h)
		}
	})
}

// TestStrangersAreNotTalkedTo: another node at the address, or one of another cluster.
func TestStrangersAreNotTalkedTo(t *testing.T) {
	for name, change := range map[string]func(f *fakeNode){
		"other node":    func(f *fakeNode) { f.peer = nodeID(8) },
		"other cluster": func(f *fakeNode) { f.cluster = ring.ClusterID{0: 8} },
	} {
		play(t, 2, func(_ *Config, n *fakeNet) { change(n.node(1)) }, func(t *testing.T, s *scene) {
			time.Sleep(3 * time.Second)
			if s.client.Health(nodeID(1)).Connected || !s.client.Health(nodeID(0)).Connected {
				t.Fatalf("%s: connected", name)
			}
			wantErr(t, <-s.call(1, readOf("k"), time.Second), ErrNotConnected)
			if n := s.node(1).greeted(); n < 2 || n > 10 {
				t.Fatalf("%s: tried %d times in 3 s", name, n)
			}
			s.node(1).set(func() { s.node(1).peer, s.node(1).cluster = nodeID(1), testCluster })
			time.Sleep(time.Second)
			if !s.client.Health(nodeID(1)).Connected {
				t.Fatalf("%s: not connected once it is itself", name)
			}
		})
	}
}

func TestWatchFallsOver(t *testing.T) {
	play(t, 3, func(c *Config, n *fakeNet) {
		c.Targets = []string{"nowhere:1", addrOf("a"), addrOf("b")}
		n.node(0).stop()
	}, func(t *testing.T, s *scene) {
		time.Sleep(2 * time.Second)
		if s.client.State() == nil {
			t.Fatal("no state though one of three targets can be reached")
		}
		// Whoever is watched goes away; a newer layout still arrives, through another.
		for i := range 3 {
			if s.node(i).watched() {
				s.node(i).stop()
			}
		}
		s.node(0).start()
		time.Sleep(time.Second)
		v := s.view.Clone()
		l, err := v.Propose([]ring.Change{{Kind: ring.ChangeReplicas, N: 2, MinW: 2}, {Kind: ring.ChangeLeave, Member: ring.Member{ID: nodeID(2)}}})
		if err != nil {
			t.Fatal(err)
		}
		s.setView(v)
		time.Sleep(6 * time.Second)
		if st := s.client.State(); len(st.Live) != 2 || st.Live[1].ID() != l.ID() || st.Read != st.Live[0] {
			t.Fatalf("state is %+v", st)
		}
	})
}

func TestStateFollowsTheView(t *testing.T) {
	play(t, 3, nil, func(t *testing.T, s *scene) {
		v := s.view.Clone()
		l, err := v.Propose([]ring.Change{{Kind: ring.ChangeReplicas, N: 2, MinW: 2}, {Kind: ring.ChangeLeave, Member: ring.Member{ID: nodeID(2)}}})
		if err != nil {
			t.Fatal(err)
		}
		generation := s.client.State().Generation
		s.client.Learn(v.Encode()) // as a refusal hands it over
		st := s.client.State()
		if st.Generation <= generation || len(st.Live) != 2 || len(st.Names) != 2 || st.ReadIndex != 0 {
			t.Fatalf("state is %+v", st)
		}
		s.client.Learn(v.Encode())
		if s.client.State() != st {
			t.Fatal("the same view made a new state")
		}
		for _, mark := range []func(ring.LayoutID, ring.NodeID){v.MarkAcked, v.MarkSynced} {
			for _, n := range v.Required(l) {
				mark(l.ID(), n)
			}
		}
		s.client.Learn(v.Encode())
		if st = s.client.State(); st.ReadIndex != 1 || st.Read != st.Live[1] {
			t.Fatalf("reads use layout %d", st.ReadIndex)
		}
		for _, n := range v.Required(l) {
			v.MarkSwitched(l.ID(), n)
		}
		s.setView(v)
		time.Sleep(time.Second)
		if st = s.client.State(); len(st.Live) != 1 || st.Live[0].ID() != l.ID() {
			t.Fatalf("state is %+v", st)
		}
		if s.client.Health(nodeID(2)).Connected {
			t.Fatal("still connected to a node that left")
		}
		wantErr(t, <-s.call(2, readOf("k"), time.Second), ErrNotConnected)
		// What is no view, or that of another cluster, changes nothing.
		s.client.Learn([]byte("no view"))
		s.client.Learn(settledView(t, ring.ClusterID{0: 9}, 2).Encode())
		if s.client.State() != st {
			t.Fatal("the state was changed by a foreign view")
		}
	})
}

// A layout that only this gateway knows, because its proposer forgot it, is told to the nodes; what they know is not.
func TestWhatNodesForgotIsToldToThem(t *testing.T) {
	play(t, 3, nil, func(t *testing.T, s *scene) {
		time.Sleep(3 * spreadEvery)
		if s.exchanges != 0 {
			t.Fatalf("views were exchanged %d times though nothing was new", s.exchanges)
		}
		v := s.view.Clone()
		l, err := v.Propose([]ring.Change{{Kind: ring.ChangeJoin, Member: ring.Member{ID: nodeID(3), Name: "d", Weight: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		s.client.Learn(v.Encode())
		time.Sleep(3 * spreadEvery)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.view.Newest().ID() != l.ID() || s.exchanges != 1 {
			t.Errorf("nodes know %s after %d exchanges, want %s after one", s.view.Newest().ID(), s.exchanges, l.ID())
		}
	})
}

func TestContextKeysAgree(t *testing.T) {
	k1, k2, k3 := [8]byte{1}, [8]byte{2}, [8]byte{3}
	for i, c := range []struct {
		own    [][8]byte
		others [][8]byte
		agree  bool
	}{
		{nil, nil, true}, {[][8]byte{k1}, [][8]byte{k1}, true}, {[][8]byte{k1, k2}, [][8]byte{k2, k3}, true},
		{[][8]byte{k1}, [][8]byte{k2}, false}, {nil, [][8]byte{k2}, false}, {[][8]byte{k1}, nil, false},
	} {
		play(t, 1, func(cfg *Config, n *fakeNet) {
			cfg.ContextKeys = c.own
			for _, k := range c.others {
				n.node(0).contextKeys = append(n.node(0).contextKeys, k[:])
			}
		}, func(t *testing.T, s *scene) {
			if agree, why := s.client.ContextKeysAgree(); agree != c.agree || agree == (why != "") {
				t.Errorf("case %d: %v, %q", i, agree, why)
			}
			if got := s.node(0).hellos[0].ContextKeys; len(got) != len(c.own) {
				t.Errorf("case %d: told %x", i, got)
			}
		})
	}
}

func TestCloseAnswersEverything(t *testing.T) {
	play(t, 2, nil, func(t *testing.T, s *scene) {
		s.node(0).set(func() { s.node(0).serve = func(*storagev1.Frame, func(...*storagev1.Response)) {} })
		out := s.call(0, readOf("k"), time.Minute)
		synctest.Wait()
		s.client.Close()
		wantErr(t, <-out, ErrLost)
		wantErr(t, <-s.call(0, readOf("k"), time.Minute), ErrNotConnected)
		s.client.Close()
	})
	c, err := New(Config{Targets: []string{"a:1"}, ID: [16]byte{1}, StreamsPerNode: 1, QueueItems: 1, QueueBytes: 1, Heartbeat: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c.Close() // before Run
	if err := c.Run(context.WithoutCancel(t.Context())); err == nil {
		t.Fatal("ran after Close")
	}
}

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{Targets: []string{"nonsense"}})
	for _, want := range []string{"nonsense", "gateway id", "streams", "queue", "heartbeat"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}

// TestEstimator: against the exact figures of the last samples, also after the distribution has changed.
func TestEstimator(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var e estimator
	for _, scale := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 300 * time.Microsecond} {
		var last []time.Duration
		for range 4000 {
			d := time.Duration(float64(scale) * rnd.ExpFloat64())
			e.add(d)
			last = append(last, d)
		}
		slices.Sort(last)
		exact := last[len(last)*95/100]
		mean, p95 := e.get()
		if p95 < exact*6/10 || p95 > exact*16/10 {
			t.Errorf("scale %s: the 95th percentile is %s, the estimate %s", scale, exact, p95)
		}
		if mean < scale/3 || mean > 3*scale {
			t.Errorf("scale %s: the mean is estimated as %s", scale, mean)
		}
	}
}
