package chaos

import (
	"reflect"
	"testing"
	"time"
)

func testPlan(seed uint64, mixed bool) planConfig {
	all, err := ParseKinds("")
	if err != nil {
		panic(err)
	}
	return planConfig{seed: seed, length: 10 * time.Minute, mixed: mixed, kinds: all, nodes: 5, gateways: 2}
}

func TestPlanOneAtATime(t *testing.T) {
	for seed := range uint64(50) {
		faults, seen := plan(testPlan(seed, false)), map[Kind]int{}
		end := time.Duration(0)
		for _, f := range faults {
			seen[f.Kind]++
			if f.At < end+calm || f.For < shortFault || f.For > longFault {
				t.Fatalf("seed %d: %s at %s, %s after the one before", seed, f, f.At, f.At-end)
			}
			end = f.At + f.For
		}
		if end > 10*time.Minute-calm {
			t.Errorf("seed %d: the last fault ends at %s", seed, end)
		}
		for _, k := range kinds {
			if n := seen[k.kind]; n < len(faults)/len(kinds) {
				t.Errorf("seed %d: %d of %d faults are %s", seed, n, len(faults), k.kind)
			}
		}
	}
}

func TestPlanMixed(t *testing.T) {
	overlaps := 0
	for seed := range uint64(50) {
		faults := plan(testPlan(seed, true))
		wipes := 0
		for i, f := range faults {
			if f.Kind == Wipe {
				wipes++
			}
			for _, g := range faults[:i] {
				if f.At >= g.At+g.For {
					continue
				}
				overlaps++
				if f.Target == g.Target && f.Kind.info().gateway == g.Kind.info().gateway {
					t.Errorf("seed %d: %s while %s", seed, f, g)
				}
			}
		}
		if wipes > 1 {
			t.Errorf("seed %d: %d nodes lose their records", seed, wipes)
		}
	}
	if overlaps < 500 {
		t.Errorf("only %d faults overlap", overlaps)
	}
}

func TestPlanIsOfItsSeed(t *testing.T) {
	if !reflect.DeepEqual(plan(testPlan(3, true)), plan(testPlan(3, true))) {
		t.Error("the same seed gives two plans")
	}
	if reflect.DeepEqual(plan(testPlan(3, true)), plan(testPlan(4, true))) {
		t.Error("two seeds give the same plan")
	}
}

func TestParseKinds(t *testing.T) {
	if got, err := ParseKinds(" kill, one-way"); err != nil || !reflect.DeepEqual(got, []Kind{Kill, OneWay}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := ParseKinds("kill,flood"); err == nil {
		t.Error("an unknown kind is taken")
	}
}
