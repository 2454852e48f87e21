package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// Two clients on two gateways that interleave a hundred distinct writes each, every one with its own last context,
// leave two siblings, though the node that minted for them is stopped half-way.
func TestTwoWritersLeaveTwoSiblings(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	cls := []*client{newClient(t, c.Gateways[0]), newClient(t, c.Gateways[1])}
	const key = "two/writers"
	empty := cls[0].want(t, http.StatusNotFound, "GET", key, "", nil).context
	if empty == "" {
		t.Fatal("a 404 without a context")
	}
	contexts := []string{empty, empty}
	for i := range 100 {
		if i == 50 {
			m := minter(t, c, cls[0].inspect(t, key))
			if err := m.Terminate(); err != nil {
				t.Fatal(err)
			}
			<-m.Exited()
		}
		for w, cl := range cls {
			a := cl.want(t, http.StatusOK, "PUT", key, "", fmt.Appendf(nil, "writer %d, write %d", w, i), "Kv-Context", contexts[w])
			contexts[w] = a.write(t).Context
		}
	}
	a := cls[0].want(t, http.StatusMultipleChoices, "GET", key, "", nil)
	vs, err := a.values()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range vs {
		got = append(got, string(v))
	}
	slices.Sort(got)
	if want := []string{"writer 0, write 99", "writer 1, write 99"}; !slices.Equal(got, want) {
		t.Fatalf("siblings %q, want %q", got, want)
	}
	cls[1].want(t, http.StatusOK, "PUT", key, "", []byte("resolved"), "Kv-Context", a.context)
	if b := cls[0].want(t, http.StatusOK, "GET", key, "", nil); string(b.body) != "resolved" {
		t.Fatalf("after the conflict was resolved: %q", b.body)
	}
}

// A context of one key is refused on another, before any node is asked.
func TestContextOfAnotherKey(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	cl, other := newClient(t, c.Gateways[0]), newClient(t, c.Gateways[1])
	ctx := cl.want(t, http.StatusOK, "PUT", "mine", "", []byte("v")).write(t).Context
	for _, method := range []string{"PUT", "DELETE", "GET"} {
		a := other.want(t, http.StatusBadRequest, method, "yours", "", nil, "Kv-Context", ctx)
		if !strings.Contains(a.problem().Type, "context") {
			t.Errorf("%s with another key's context: problem %+v", method, a.problem())
		}
	}
	other.want(t, http.StatusNotFound, "GET", "yours", "", nil)
	forged := []byte(ctx)
	forged[len(forged)/2] ^= 1
	cl.want(t, http.StatusBadRequest, "PUT", "mine", "", nil, "Kv-Context", string(forged))
}

// A request id that is repeated, through another gateway too, makes no second sibling and answers the first outcome.
func TestRequestIDRepeated(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	cls := []*client{newClient(t, c.Gateways[0]), newClient(t, c.Gateways[1])}
	ctx := cls[0].want(t, http.StatusNotFound, "GET", "once", "", nil).context
	var first write
	for i := range 6 {
		a := cls[i%2].want(t, http.StatusOK, "PUT", "once", "", []byte("v"), "Kv-Context", ctx, "Kv-Request-Id", "order-17")
		if w := a.write(t); i == 0 {
			first = w
		} else if w.Context != first.Context || w.Siblings != 1 {
			t.Fatalf("repetition %d answers %+v, the first %+v", i, w, first)
		}
	}
	for _, r := range cls[0].inspect(t, "once").Replicas {
		if len(r.Siblings) > 1 {
			t.Fatalf("%s holds %d siblings of one write", r.Name, len(r.Siblings))
		}
	}
}

// Clients that read, merge and write one key at once, each adding elements of its own to a set, lose none that was
// acknowledged.
func TestReadMergeWriteLosesNothing(t *testing.T) {
	const clients = 8
	each := fewer(250, 50)
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2})
	var (
		mu    sync.Mutex
		acked []int
		wg    sync.WaitGroup
	)
	for w := range clients {
		cl := newClient(t, c.Gateways[w%2])
		wg.Go(func() {
			for i := range each {
				e := w*each + i
				if err := addElement(cl, "set", e); err != nil {
					t.Errorf("element %d: %v", e, err)
					return
				}
				mu.Lock()
				acked = append(acked, e)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got, _, err := readSet(newClient(t, c.Gateways[0]), "set")
	if err != nil {
		t.Fatal(err)
	}
	if len(acked) != clients*each {
		t.Errorf("%d of %d elements were acknowledged", len(acked), clients*each)
	}
	for _, e := range acked {
		if !got[e] {
			t.Errorf("acknowledged element %d is lost", e)
		}
	}
}

// readSet reads a set stored as numbers with commas; siblings are joined.
func readSet(cl *client, key string) (set map[int]bool, context string, err error) {
	a, err := cl.do("GET", key, patience, nil)
	if err != nil {
		return nil, "", err
	}
	values, err := a.values()
	if err != nil {
		return nil, "", err
	}
	set = map[int]bool{}
	for _, v := range values {
		for f := range strings.SplitSeq(string(v), ",") {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil, "", fmt.Errorf("element %q: %w", f, err)
			}
			set[n] = true
		}
	}
	return set, a.context, nil
}

func addElement(cl *client, key string, e int) error {
	set, context, err := readSet(cl, key)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	set[e] = true
	var elements []string
	for n := range set {
		elements = append(elements, strconv.Itoa(n))
	}
	slices.Sort(elements)
	a, err := cl.do("PUT", key, patience, []byte(strings.Join(elements, ",")), "Kv-Context", context)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("write answers %v", a)
	}
	return nil
}

// A replica whose data folder was emptied underneath it is whole again for every key that was read once by all.
func TestReadRepairsRemovedCopies(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	cl := newClient(t, c.Gateways[0])
	const keys = 100
	for i := range keys {
		cl.want(t, http.StatusOK, "PUT", fmt.Sprintf("repair/%d", i), "w=all", fmt.Appendf(nil, "value %d", i))
	}
	victim := c.Nodes[1]
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	removeRecords(t, victim, "repair/")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	waitReady(t, c, 3)
	missing := 0
	for i := range keys {
		key := fmt.Sprintf("repair/%d", i)
		if replicaState(t, cl, key, victim.Name) == "absent" {
			missing++
		}
		if a := cl.want(t, http.StatusOK, "GET", key, "r=all", nil); string(a.body) != fmt.Sprintf("value %d", i) {
			t.Fatalf("%s reads %q", key, a.body)
		}
	}
	if missing != keys {
		t.Fatalf("%d of %d copies were removed: the test shows nothing", missing, keys)
	}
	for i := range keys {
		key := fmt.Sprintf("repair/%d", i)
		eventually(t, c, func() error {
			in := cl.inspect(t, key)
			for _, r := range in.Replicas {
				if r.State != "record" || r.Digest != in.Replicas[0].Digest {
					return fmt.Errorf("%s: %s holds %s %s", key, r.Name, r.State, r.Digest)
				}
			}
			return nil
		})
	}
}

func replicaState(t *testing.T, cl *client, key, node string) string {
	t.Helper()
	for _, r := range cl.inspect(t, key).Replicas {
		if r.Name == node {
			return r.State
		}
	}
	t.Fatalf("%s is not among the replicas of %s", node, key)
	return ""
}
