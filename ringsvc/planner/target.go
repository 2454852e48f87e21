package planner

import (
	"math"
	"slices"
)

// claim is what a node may ask of the ring.
type claim struct {
	zone   int32
	weight float64
}

// targets is the fairest share of each node, as a multiple of the ring (1: a copy of everything), that a layout with this many copies can
// give it. A node holds at most one copy. With at least as many zones as copies a zone holds at most one, with fewer at least one. Within
// those bounds the shares are proportional to the weights: the level is raised until all copies have a place, and whoever is full, or
// forced to take more, leaves the rest to the others.
func targets(nodes []claim, replicas int) []float64 {
	zones := 0
	for _, n := range nodes {
		zones = max(zones, int(n.zone)+1)
	}
	out := make([]float64, len(nodes))
	members := make([][]int, zones)
	for i, n := range nodes {
		members[n.zone] = append(members[n.zone], i)
	}
	forced := make([]bool, zones) // holds exactly one copy
	for {
		free, copies := []int(nil), float64(replicas)
		for z, in := range members {
			if forced[z] {
				fill(nodes, in, 1, out)
				copies--
				continue
			}
			free = append(free, in...)
		}
		fill(nodes, free, copies, out)
		changed := false
		for z, in := range members {
			sum := 0.0
			for _, i := range in {
				sum += out[i]
			}
			if forced[z] || len(in) == 0 || !(zones >= replicas && sum > 1+1e-9 || zones < replicas && sum < 1-1e-9) {
				continue
			}
			forced[z], changed = true, true
		}
		if !changed {
			return out
		}
	}
}

// fill shares copies out among the nodes named, proportional to weight, at most 1 each.
func fill(nodes []claim, in []int, copies float64, out []float64) {
	order := slices.Clone(in)
	slices.SortFunc(order, func(a, b int) int {
		switch d := nodes[b].weight - nodes[a].weight; {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
		return a - b
	})
	weight := 0.0
	for _, i := range order {
		weight += nodes[i].weight
	}
	for _, i := range order { // the heaviest are full first
		out[i] = math.Max(0, math.Min(1, copies*nodes[i].weight/weight))
		copies -= out[i]
		weight -= nodes[i].weight
	}
}
