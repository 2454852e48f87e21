package scale

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"
	"github.com/dotring/dotring/proto/wire"
	"github.com/dotring/dotring/ringsvc/membership"
)

// What is wanted at 300 nodes and 50 gateways, and so of fewer.
const (
	spreadLimit  = 3 * time.Second
	crashLimit   = 20 * time.Second
	trafficLimit = 50e3 // bytes for each node and second
	patience     = 5 * time.Minute
)

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// decommission asks a node to take another out of the layout.
func (w *world) decommission(at, leaving *member) {
	w.t.Helper()
	c, err := grpc.NewClient("passthrough:///"+at.port.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(w.net.dial(nil)), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // only fails where it is closed already
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	_, err = storagev1.NewStorageClient(c).ChangeLayout(ctx, &storagev1.ChangeLayoutRequest{
		Change: storagev1.LayoutChange_LAYOUT_CHANGE_LEAVE, Node: leaving.id[:]})
	if err != nil {
		w.t.Fatal(err)
	}
}

// How fast news spread, and what that costs, in fake time: make soak-scale has 300 nodes and 50 gateways.
func TestScale(t *testing.T) {
	if testing.Short() {
		// Fewer nodes find the same races, if there are any; with many, the race detector itself may give up (a CHECK of tsan_rtl.cpp).
		*nodes, *gateways = min(*nodes, 8), min(*gateways, 2)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		began := time.Now()
		empty := heap()
		w.start(3)
		w.within(patience, "three nodes settled", w.settled(3))
		w.start(*nodes - 3)
		took := w.within(patience, "all nodes settled", w.settled(*nodes))
		t.Logf("%d nodes that start at once are in one settled layout after %v", *nodes, took[0])
		time.Sleep(20 * time.Second)
		t.Logf("memory for each node: %d KiB", (heap()-empty)/uint64(*nodes)>>10)
		w.open(*gateways)
		w.within(patience, "gateways know it", w.settled(*nodes))
		time.Sleep(5 * time.Second)
		t.Logf("and with %d gateways, these included: %d KiB", *gateways, (heap()-empty)/uint64(*nodes)>>10)

		quiet := w.watch()
		time.Sleep(20 * time.Second)
		mean, most := quiet()
		t.Logf("at rest, for each node: %v; most: %v", mean, most)
		if most.total() > trafficLimit {
			t.Errorf("a node spends %.0f bytes a second at rest", most.total())
		}

		var joins, layouts, settles, leaves []time.Duration
		for range *runs {
			_, newest := w.all[0].Layouts()
			busy := w.watch()
			joiner := w.start(1)[0]
			fresh := func() bool { _, n := w.all[0].Layouts(); return n.Epoch > newest.Epoch }
			took := w.within(patience, "a node joined", w.seen(membership.Alive, joiner), fresh, w.known(newest.Epoch+1), w.settled(len(w.up())))
			joins = append(joins, took[0])
			layouts = append(layouts, took[2])
			settles = append(settles, took[3])
			mean, most := busy()
			t.Logf("join: alive everywhere after %v, layout known everywhere after %v, settled after %v; meanwhile %v; most %v", took[0], took[2], took[3], mean, most)
			time.Sleep(5 * time.Second)
		}
		for range *runs {
			_, newest := w.all[0].Layouts()
			busy := w.watch()
			up := w.up()
			leaver := up[len(up)-1]
			began := time.Now()
			w.decommission(up[1], leaver)
			asked := time.Since(began)
			took := w.within(patience, "a node left", w.known(newest.Epoch+1), w.settled(len(up)-1))
			leaves = append(leaves, took[0])
			mean, most := busy()
			t.Logf("leave: planned in %v, known everywhere after %v, settled after %v; meanwhile %v; most %v", asked, took[0], took[1], mean, most)
			time.Sleep(5 * time.Second)
			w.end([]*member{leaver})
		}
		t.Logf("median of %d, settled after a join: %v", *runs, median(settles))
		for what, d := range map[string]time.Duration{"alive": median(joins), "layout of a join": median(layouts), "leave": median(leaves)} {
			t.Logf("median of %d, %s: %v", *runs, what, d)
			if d > spreadLimit {
				t.Errorf("%s: known everywhere after %v", what, d)
			}
		}

		up := w.up()
		victim := up[len(up)-1]
		w.kill(victim)
		crash := w.within(patience, "a crash", w.seen(membership.Failed, victim))[0]
		t.Logf("crash: known everywhere after %v", crash)
		if crash > crashLimit {
			t.Errorf("a crash is known everywhere after %v", crash)
		}
		up = w.up()
		many := up[len(up)-max(1, len(up)/10):]
		busy := w.watch()
		w.kill(many...)
		crashes := w.within(patience, "crashes", w.seen(membership.Failed, many...))[0]
		mean, most = busy()
		t.Logf("%d crashes at once: known everywhere after %v; meanwhile %v; most %v", len(many), crashes, mean, most)
		if crashes > crashLimit {
			t.Errorf("%d crashes are known everywhere after %v", len(many), crashes)
		}
		t.Logf("fake time: %v", time.Since(began))
	})
}
