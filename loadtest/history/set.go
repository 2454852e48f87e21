package history

import "math/bits"

// set is a set of small numbers, a bit each. It is never modified once made.
type set []uint64

func (s set) has(i int) bool { return i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 }

func (s set) with(i int) set {
	if s.has(i) {
		return s
	}
	out := make(set, max(len(s), i/64+1))
	copy(out, s)
	out[i/64] |= 1 << (i % 64)
	return out
}

func (s set) join(o set) set {
	if len(s) < len(o) {
		s, o = o, s
	}
	extra := false
	for i, w := range o {
		if w&^s[i] != 0 {
			extra = true
			break
		}
	}
	if !extra {
		return s
	}
	out := make(set, len(s))
	copy(out, s)
	for i, w := range o {
		out[i] |= w
	}
	return out
}

func (s set) and(o set) set {
	out := make(set, min(len(s), len(o)))
	for i := range out {
		out[i] = s[i] & o[i]
	}
	return out
}

func (s set) minus(o set) set {
	out := make(set, len(s))
	for i, w := range s {
		if out[i] = w; i < len(o) {
			out[i] = w &^ o[i]
		}
	}
	return out
}

// first returns the lowest number in s.
func (s set) first() (int, bool) {
	for i, w := range s {
		if w != 0 {
			return i*64 + bits.TrailingZeros64(w), true
		}
	}
	return 0, false
}
