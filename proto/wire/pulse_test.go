package wire

import (
	"bytes"
	"testing"
	"time"
)

func TestPulseTellsTheTimeOfOneLife(t *testing.T) {
	start := time.Unix(1000, 0)
	p, err := NewPulse(bytes.NewReader([]byte("12345678")), start)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewPulse(bytes.NewReader([]byte("87654321")), start)
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{0, time.Millisecond, time.Second, 1234567 * time.Millisecond, 20 * 365 * 24 * time.Hour} {
		n := p.Number(start.Add(after))
		born, ok := p.Born(n)
		if age := start.Add(after).Sub(born); !ok || n == 0 || age < 0 || age >= pulseUnit {
			t.Errorf("after %s: born %s earlier, %v", after, age, ok)
		}
		if _, ok := other.Born(n); ok {
			t.Error("a number of another life is accepted")
		}
	}
	if _, ok := p.Born(0); ok {
		t.Error("0 is accepted")
	}
	if _, err := NewPulse(bytes.NewReader(nil), start); err == nil {
		t.Error("a life without randomness")
	}
}

func TestHeardTellsWhatHadComeBy(t *testing.T) {
	var h Heard
	start := time.Unix(1000, 0)
	if n := h.By(start); n != 0 {
		t.Errorf("%d before anything came", n)
	}
	for i := range 5 * heardMax {
		h.Add(start.Add(time.Duration(i)*heardEvery/4), uint64(i)+1)
		if len(h.numbers) > heardMax {
			t.Fatal("not bounded")
		}
	}
	h.Add(start.Add(5*heardMax*heardEvery/4+1), 1<<40) // another life is noted at once
	last := start.Add(5 * heardMax * heardEvery / 4)
	if n := h.By(last.Add(time.Hour)); n != 1<<40 {
		t.Errorf("%d is the last", n)
	}
	if n := h.By(last.Add(-10 * heardEvery)); n == 0 || n > 5*heardMax-40+1 || n < 5*heardMax-48 {
		t.Errorf("%d had come by then", n)
	}
	if n := h.By(start); n != 0 {
		t.Errorf("%d is remembered for too long", n)
	}
}
