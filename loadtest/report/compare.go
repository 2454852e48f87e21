package report

import "math"

// Comparison is what targets did in turn, each alone while the other was idle.
type Comparison struct {
	A      string `json:"a"` // the numerator of every ratio
	B      string `json:"b"`
	Rounds int    `json:"rounds"`
	Cells  []Cell `json:"cells"`
	// Syncs are fsyncs for each acknowledged put, where they were counted.
	Syncs []Syncs  `json:"syncs,omitempty"`
	Notes []string `json:"notes,omitempty"`
}

// Cell is one workload at one number of connections: as many turns of each as there were rounds.
type Cell struct {
	Workload    string `json:"workload"`
	Connections int    `json:"connections"`
	A           []Turn `json:"a"`
	B           []Turn `json:"b"`
}

// Turn is one run, summed up.
type Turn struct {
	Throughput float64 `json:"throughput"`
	P50US      int64   `json:"p50_us"`
	P99US      int64   `json:"p99_us"`
	P999US     int64   `json:"p999_us"`
	MaxUS      int64   `json:"max_us"`
	ServerCPU  float64 `json:"server_cpu_us"` // for each operation
	// OtherCPU is the share of one processor that the idle target took meanwhile.
	OtherCPU float64 `json:"other_cpu"`
	GenCPU   float64 `json:"generator_cpu_share"`
	NotDone  int64   `json:"not_done"`
	Valid    bool    `json:"valid"`
}

// Syncs is what strace counted.
type Syncs struct {
	Name  string  `json:"name"`
	Calls int64   `json:"calls"`
	Puts  float64 `json:"puts"`
}

// PerPut is the syncs for each put.
func (s Syncs) PerPut() float64 {
	if s.Puts == 0 {
		return 0
	}
	return float64(s.Calls) / s.Puts
}

// TurnOf sums up a run.
func TurnOf(r Run) Turn {
	return Turn{Throughput: r.Throughput, P50US: r.All.P50US, P99US: r.All.P99US, P999US: r.All.P999US, MaxUS: r.All.MaxUS,
		ServerCPU: r.ServerCPU(), GenCPU: r.Generator.CPUShare, NotDone: r.NotDone.Count, Valid: r.Valid}
}

// Spread is a mean, the least and the greatest of some numbers.
type Spread struct{ Mean, Min, Max float64 }

// SpreadOf takes the geometric mean, which a ratio and its inverse agree on; of no numbers, or where one is not
// positive, the mean is 0.
func SpreadOf(xs []float64) Spread {
	if len(xs) == 0 {
		return Spread{}
	}
	s, logs := Spread{Min: xs[0], Max: xs[0]}, 0.0
	for _, x := range xs {
		s.Min, s.Max = min(s.Min, x), max(s.Max, x)
		logs += math.Log(x)
	}
	if s.Min > 0 {
		s.Mean = math.Exp(logs / float64(len(xs)))
	}
	return s
}

// over spreads f of the turns.
func over(turns []Turn, f func(Turn) float64) Spread {
	xs := make([]float64, 0, len(turns))
	for _, t := range turns {
		xs = append(xs, f(t))
	}
	return SpreadOf(xs)
}

// Ratio is of A's throughput to B's, round by round.
func (c Cell) Ratio() Spread {
	var xs []float64
	for i := range min(len(c.A), len(c.B)) {
		if c.B[i].Throughput > 0 {
			xs = append(xs, c.A[i].Throughput/c.B[i].Throughput)
		}
	}
	return SpreadOf(xs)
}

// Valid says that every turn was valid.
func (c Cell) Valid() bool {
	for _, turns := range [][]Turn{c.A, c.B} {
		for _, t := range turns {
			if !t.Valid {
				return false
			}
		}
	}
	return len(c.A) > 0 && len(c.A) == len(c.B)
}

// Floor is what operations cost the cluster, against the sum of the parts that they need.
type Floor struct {
	ValueSize   int         `json:"value_size"`
	Connections int         `json:"connections"`
	Parts       []Part      `json:"parts"`
	Operations  []Operation `json:"operations"`
	Notes       []string    `json:"notes,omitempty"`
}

// Part is a thing measured alone: CPU time on this machine, everything included that its process or processes did.
type Part struct {
	Name string  `json:"name"`
	What string  `json:"what"`
	CPU  float64 `json:"cpu_us"` // for each one
	Rate float64 `json:"rate"`   // a second
}

// Operation is what one operation costs the cluster, and which parts it needs.
type Operation struct {
	Name    string  `json:"name"`
	Cluster float64 `json:"cluster_cpu_us"`
	// ByProcess splits Cluster.
	ByProcess []Usage `json:"by_process,omitempty"`
	Rate      float64 `json:"rate"`
	Needs     []Need  `json:"needs"`
	Valid     bool    `json:"valid"`
}

// Need is a part, how often, and the product of its cost with that.
type Need struct {
	Part  string  `json:"part"`
	Times float64 `json:"times"`
	CPU   float64 `json:"cpu_us"`
}

// Sum is the cost of all parts, in microseconds of CPU.
func (o Operation) Sum() float64 {
	sum := 0.0
	for _, n := range o.Needs {
		sum += n.CPU
	}
	return sum
}

// Ratio is the cluster's cost to that of the parts.
func (o Operation) Ratio() float64 {
	if sum := o.Sum(); sum > 0 {
		return o.Cluster / sum
	}
	return 0
}
