package workload

import (
	"bytes"
	"compress/flate"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func spec(mix Mix, d Distribution, records uint64) Spec {
	return Spec{Name: "t", Mix: mix, Distribution: d, Records: records, KeySize: 24, ValueSize: 100}
}

func chooser(t testing.TB, s Spec) (*Chooser, *Shared) {
	t.Helper()
	shared, err := NewShared(s)
	if err != nil {
		t.Fatal(err)
	}
	return NewChooser(shared, rand.New(rand.NewPCG(1, 2))), shared
}

// near fails where a count is more than five standard deviations from what a probability lets expect.
func near(t *testing.T, what string, count, draws int, p float64) {
	t.Helper()
	expect := p * float64(draws)
	if sigma := math.Sqrt(expect * (1 - p)); math.Abs(float64(count)-expect) > 5*sigma+1 {
		t.Errorf("%s: %d of %d, expected %.0f ± %.0f", what, count, draws, expect, sigma)
	}
}

func TestMixesAreThoseOfYCSB(t *testing.T) {
	want := map[string]struct {
		mix  Mix
		dist Distribution
	}{
		"a": {Mix{0.5, 0.5, 0, 0, 0}, Zipfian},
		"b": {Mix{0.95, 0.05, 0, 0, 0}, Zipfian},
		"c": {Mix{1, 0, 0, 0, 0}, Zipfian},
		"d": {Mix{0.95, 0, 0.05, 0, 0}, Latest},
		"f": {Mix{0.5, 0, 0, 0.5, 0}, Zipfian},
	}
	const draws = 50_000
	for letter, w := range want {
		mix, dist, err := YCSB(letter)
		if err != nil || mix != w.mix || dist != w.dist {
			t.Fatalf("workload %s: %v %v %v", letter, mix, dist, err)
		}
		c, shared := chooser(t, spec(mix, dist, 1000))
		var counts [Ops]int
		for range draws {
			s := c.Next()
			counts[s.Op]++
			if s.Op == Insert {
				shared.Inserted(s.Record)
			}
		}
		for op, n := range counts {
			near(t, letter+" "+Op(op).String(), n, draws, w.mix[op])
		}
	}
	if _, _, err := YCSB("e"); !errors.Is(err, ErrUnknown) {
		t.Errorf("workload e: %v", err)
	}
}

func TestPlainMix(t *testing.T) {
	for _, gets := range []float64{0, 0.5, 1} {
		if err := spec(Plain(gets), Uniform, 10).Validate(); err != nil {
			t.Errorf("%v gets: %v", gets, err)
		}
	}
	c, _ := chooser(t, spec(Plain(0), Uniform, 10))
	for range 1000 {
		if s := c.Next(); s.Op != Update {
			t.Fatalf("a mix of puts alone drew %v", s.Op)
		}
	}
}

func TestUniform(t *testing.T) {
	const records, draws = 50, 100_000
	c, _ := chooser(t, spec(Plain(1), Uniform, records))
	var counts [records]int
	for range draws {
		counts[c.Next().Record]++
	}
	for r, n := range counts {
		near(t, "record "+string(rune('0'+r%10)), n, draws, 1.0/records)
	}
}

// The first two ranks are drawn with exactly their probability; of the others the cumulative share is close.
func TestZipfianRanks(t *testing.T) {
	const items, draws = 1000, 1_000_000
	zeta := zetaBetween(0, items)
	z := newZipf(items, zeta)
	rng := rand.New(rand.NewPCG(3, 4))
	counts := make([]int, items)
	for range draws {
		counts[z.next(rng)]++
	}
	for rank := range 2 {
		near(t, "rank", counts[rank], draws, math.Pow(float64(rank+1), -theta)/zeta)
	}
	for _, upTo := range []int{10, 30, 100, 300} {
		got := 0
		for _, n := range counts[:upTo] {
			got += n
		}
		want := zetaBetween(0, uint64(upTo)) / zeta
		if share := float64(got) / draws; math.Abs(share-want) > 0.02 {
			t.Errorf("the first %d ranks have a share of %.4f, want %.4f", upTo, share, want)
		}
	}
	if counts[items-1] == 0 {
		t.Error("the last rank is never drawn")
	}
}

// Steep draws rank n in proportion to n to the power of -1.2, and hot reads go to one record.
func TestSteepAndHot(t *testing.T) {
	const records, draws = 10_000, 400_000
	c, _ := chooser(t, spec(Mix{Read: 0.7, HotRead: 0.3}, Steep, records))
	counts, hot := make([]int, records), 0
	for range draws {
		s := c.Next()
		if s.Op == HotRead {
			hot++
			if s.Record != 0 {
				t.Fatalf("a hot read of record %d", s.Record)
			}
			continue
		}
		counts[s.Record]++
	}
	near(t, "hot", hot, draws, 0.3)
	zeta := 0.0
	for n := range records {
		zeta += math.Pow(float64(n+1), -steepness)
	}
	for rank := range uint64(3) {
		want := math.Pow(float64(rank+1), -steepness) / zeta
		if share := float64(counts[fnv64(rank)%records]) / float64(draws-hot); share < 0.98*want || share > 1.1*want+0.001 {
			t.Errorf("rank %d has a share of %.4f, want %.4f", rank, share, want)
		}
	}
}

// YCSB draws over ten billion ranks and scatters them: the hottest record has 1/zeta of all, and its share of the rest.
func TestZipfianIsScattered(t *testing.T) {
	const records, draws = 10_000, 400_000
	c, _ := chooser(t, spec(Plain(1), Zipfian, records))
	counts := make([]int, records)
	for range draws {
		counts[c.Next().Record]++
	}
	first, second := fnv64(0)%records, fnv64(1)%records
	if first == 0 && second == 1 {
		t.Fatal("ranks are not scattered")
	}
	for rank, r := range []uint64{first, second} {
		weight := math.Pow(float64(rank+1), -theta) / scatterZeta
		p := weight + (1-weight)/records
		if share := float64(counts[r]) / draws; share < weight*0.97 || share > p*1.1 {
			t.Errorf("rank %d has a share of %.5f, want %.5f to %.5f", rank, share, weight, p)
		}
	}
	for r, n := range counts {
		if r != int(first) && n > counts[first] {
			t.Errorf("record %d is hotter than the hottest", r)
		}
	}
}

func TestScatterZetaIsTheSum(t *testing.T) {
	// The integral bounds the sum that is too long to take: the tail of a falling function.
	const head = 1_000_000
	integral := func(n float64) float64 { return math.Pow(n, 1-theta) / (1 - theta) }
	sum := zetaBetween(0, head) + integral(scatterItems) - integral(head)
	if math.Abs(sum-scatterZeta) > 1e-4 {
		t.Errorf("the sum of the weights is %.6f, the constant says %.6f", sum, scatterZeta)
	}
}

func TestLatestPrefersTheNewest(t *testing.T) {
	const records, draws = 1000, 200_000
	mix, dist, err := YCSB("d")
	if err != nil {
		t.Fatal(err)
	}
	mix[Read], mix[Insert] = 0.999, 0.001
	c, shared := chooser(t, spec(mix, dist, records))
	byAge := map[uint64]int{}
	reads := 0
	for range draws {
		s := c.Next()
		if s.Op == Insert {
			shared.Inserted(s.Record)
			continue
		}
		reads++
		known := shared.Known()
		if s.Record >= known {
			t.Fatalf("record %d is read, %d exist", s.Record, known)
		}
		byAge[known-1-s.Record]++
	}
	if shared.Known() == records {
		t.Fatal("nothing was inserted")
	}
	// The number of records grew by a fifth, so the probability lies between those of the start and the end.
	for age := range uint64(2) {
		w := math.Pow(float64(age+1), -theta)
		high, low := w/zetaBetween(0, records), w/zetaBetween(0, shared.Known())
		if share := float64(byAge[age]) / float64(reads); share > high*1.03 || share < low*0.97 {
			t.Errorf("age %d has a share of %.4f, want %.4f to %.4f", age, share, low, high)
		}
	}
}

func TestGrowIsTheSameAsNew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Uint64Range(1, 2000).Draw(t, "from")
		more := rapid.SliceOfN(rapid.Uint64Range(0, 500), 0, 5).Draw(t, "more")
		z, n := newZipf(from, zetaBetween(0, from)), from
		for _, m := range more {
			n += m
			z.grow(n)
		}
		fresh := newZipf(n, zetaBetween(0, n))
		if math.Abs(z.zeta-fresh.zeta) > 1e-9 || math.Abs(z.eta-fresh.eta) > 1e-9 || z.items != fresh.items {
			t.Fatalf("grown %+v, new %+v", z, fresh)
		}
		rng := rand.New(rand.NewPCG(n, from))
		for range 100 {
			if r := z.next(rng); r >= n {
				t.Fatalf("rank %d of %d", r, n)
			}
		}
	})
}

// Records become known in order, when all before them have ended, in whatever order they end.
func TestInsertedInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shared, err := NewShared(spec(Mix{Insert: 1}, Uniform, 5))
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, 30).Draw(t, "inserts")
		order := make([]uint64, n)
		for i := range order {
			order[i] = shared.take()
		}
		order = rapid.Permutation(order).Draw(t, "order")
		ended := map[uint64]bool{}
		for _, r := range order {
			shared.Inserted(r)
			ended[r] = true
			want := uint64(5)
			for ended[want] {
				want++
			}
			if got := shared.Known(); got != want {
				t.Fatalf("after %v: %d known, want %d", ended, got, want)
			}
		}
		if len(shared.done) != 0 {
			t.Fatalf("%d records are remembered for nothing", len(shared.done))
		}
	})
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		n    uint64
		size int
		want string
	}{
		{7, 8, "user0007"},
		{12345, 10, "user012345"},
		{0, 23, "user0000000000000000000"},
		{0, 24, "user06284781860667377211"}, // FNV-1a of eight zero bytes, 12161962213042174405, as a signed number without its sign
		{1, 30, ""},
	} {
		got := string(AppendKey([]byte("x"), c.n, c.size))[1:]
		if len(got) != c.size {
			t.Errorf("key %d of %d bytes: %q has %d", c.n, c.size, got, len(got))
		}
		if c.size <= 24 && got != c.want {
			t.Errorf("key %d of %d bytes: %q, want %q", c.n, c.size, got, c.want)
		}
	}
	for _, size := range []int{10, 24, 100} {
		seen := map[string]bool{}
		for n := range uint64(20_000) {
			seen[string(AppendKey(nil, n, size))] = true
		}
		if len(seen) != 20_000 {
			t.Errorf("size %d: %d different keys of 20000", size, len(seen))
		}
	}
}

func TestValuesDoNotCompress(t *testing.T) {
	v := NewValues(1, 1024)
	var all, out bytes.Buffer
	for range 200 {
		all.Write(v.Next())
	}
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(all.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if out.Len() < all.Len() {
		t.Errorf("%d bytes became %d", all.Len(), out.Len())
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	bad := Spec{Mix: Mix{0.5, -1, 0, math.NaN()}, Distribution: 9, Records: 0, KeySize: 3, ValueSize: -1}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"share of put", "share of rmw", "add up", "distribution", "records", "key size", "value size"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not named in %v", part, err)
		}
	}
	tight := spec(Plain(1), Uniform, 9000)
	tight.KeySize = 8
	if tight.Validate() == nil {
		t.Error("9000 records in four digits, with no room to insert, accepted")
	}
	for d := Uniform; d <= Latest; d++ {
		if got, err := ParseDistribution(d.String()); got != d || err != nil {
			t.Errorf("%v: %v %v", d, got, err)
		}
	}
	if _, err := ParseDistribution("pareto"); err == nil {
		t.Error("pareto accepted")
	}
}

// Estimate: a draw is two random numbers and one power, 100 ns; 128 words of a value, 1.5 ns each, 200 ns.
// Measured: 370 ns, no allocation, on a busy two-core machine.
func BenchmarkStep(b *testing.B) {
	mix, dist, err := YCSB("a")
	if err != nil {
		b.Fatal(err)
	}
	c, _ := chooser(b, spec(mix, dist, 1_000_000))
	v := NewValues(1, 1024)
	key := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		s := c.Next()
		key = AppendKey(key[:0], s.Record, 24)
		v.Next()
	}
}
