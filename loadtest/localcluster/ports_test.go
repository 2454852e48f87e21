package localcluster

import "testing"

// Blocks that are held at the same time share no port; a block that was given back can be taken again.
func TestReservedPortsDoNotMeet(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		p, err := ReservePorts()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Release(); err != nil {
				t.Error(err)
			}
		})
		for range 20 {
			addr, err := p.Next()
			if err != nil {
				t.Fatal(err)
			}
			if seen[addr] {
				t.Fatalf("%s was given twice", addr)
			}
			seen[addr] = true
		}
	}
}

func TestBlockEnds(t *testing.T) {
	p, err := ReservePorts()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Release(); err != nil {
			t.Error(err)
		}
	})
	for range blockSize + 1 {
		if _, err = p.Next(); err != nil {
			return
		}
	}
	t.Error("more addresses than a block holds")
}
