package workload

import (
	"math"
	"math/rand/v2"
)

const (
	// theta is YCSB's zipfian constant.
	theta = 0.99
	// scatterItems and scatterZeta are the ranks over which YCSB's scrambled zipfian draws, and the sum of their
	// weights, which it has as a constant too.
	scatterItems = 10_000_000_000
	scatterZeta  = 26.46902820178302
)

// zipf draws ranks 0, 1, ... with weights 1/(rank+1)^theta, by the method of Gray et al., Quickly Generating
// Billion-Record Synthetic Databases (SIGMOD 1994): exact for the first two ranks, and close for the others. Not safe
// for concurrent use.
type zipf struct {
	items      uint64
	zeta       float64 // sum of the weights of all items
	eta, alpha float64
	second     float64 // weight of the first two ranks
}

// newZipf is for items from 1 on; zeta is the sum of their weights.
func newZipf(items uint64, zeta float64) zipf {
	z := zipf{items: items, zeta: zeta}
	z.settle()
	return z
}

func (z *zipf) settle() {
	z.second = 1 + math.Pow(0.5, theta)
	z.alpha = 1 / (1 - theta)
	z.eta = (1 - math.Pow(2/float64(z.items), 1-theta)) / (1 - z.second/z.zeta)
}

// grow extends the items, at the cost of one power for each new one.
func (z *zipf) grow(items uint64) {
	if items <= z.items {
		return
	}
	z.zeta += zetaBetween(z.items, items)
	z.items = items
	z.settle()
}

func (z *zipf) next(rng *rand.Rand) uint64 {
	u := rng.Float64()
	uz := u * z.zeta
	switch {
	case uz < 1:
		return 0
	case uz < z.second:
		return min(1, z.items-1)
	}
	rank := uint64(float64(z.items) * math.Pow(z.eta*u-z.eta+1, z.alpha))
	return min(rank, z.items-1)
}

// zetaBetween sums the weights of the ranks from (inclusive) to (exclusive).
func zetaBetween(from, to uint64) float64 {
	sum := 0.0
	for i := from; i < to; i++ {
		sum += math.Pow(float64(i+1), -theta)
	}
	return sum
}
