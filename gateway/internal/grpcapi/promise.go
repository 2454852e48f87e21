package grpcapi

import (
	"fmt"
	"strings"
)

// facts is what the cluster's promise depends on, as one gateway sees it.
type facts struct {
	known                      bool // a layout is known
	members, usable            int  // in the layout; of them, those this gateway can use
	replicas, configured, minW int
	r, w                       int // the gateway's defaults
	zones                      int
	away, disputed             []string // names: members that cannot be used; used though gossip calls them failed
	changing                   string   // the layout that is being changed to; empty for none
	waitsTo                    string
	waitsFor                   []string
	signed                     bool
	keysAgree                  bool
	keysReason                 string
}

// promise says in one sentence what the cluster can do as it is. With so many members away, a key may have that many of
// its replicas away, but never more than all of them.
func (f facts) promise() string {
	if !f.known {
		return "No layout is known yet, so nothing can be read or written."
	}
	away := min(f.members-f.usable, f.replicas)
	left := f.replicas - away
	b := &strings.Builder{}
	switch {
	case f.usable == 0:
		return fmt.Sprintf("None of the %d members can be reached, so nothing can be read or written.", f.members)
	case f.replicas < f.configured && f.replicas == 1:
		fmt.Fprintf(b, "With 1 member of the %d that %d copies need, each key has one copy, which is lost with its machine: "+
			"r and w up to %d are taken for 1", f.configured, f.configured, f.configured)
	case f.replicas < f.configured:
		fmt.Fprintf(b, "With %d members of the %d that %d copies need, each key has %d copies: r and w up to %d are taken for "+
			"%d at most", f.members, f.configured, f.configured, f.replicas, f.configured, f.replicas)
	case away == 0:
		fmt.Fprintf(b, "All %d members work: every key has %d copies, and r and w up to %d work", f.members, f.replicas,
			f.replicas)
	}
	if away > 0 {
		f.promiseAway(b, left)
	} else if spare := f.replicas - max(f.effective(f.r), f.effective(f.w)); spare > 0 {
		fmt.Fprintf(b, ", and any %s may fail without failing requests with r=%d and w=%d", machines(spare), f.r, f.w)
	} else {
		fmt.Fprintf(b, ", and no machine may fail without failing requests with r=%d or w=%d", f.r, f.w)
	}
	return b.String() + "."
}

// promiseAway says what works with members away; left is the least number of a key's replicas that can be reached.
func (f facts) promiseAway(b *strings.Builder, left int) {
	if b.Len() > 0 {
		b.WriteString("; ")
	}
	fmt.Fprintf(b, "%d of %d members can be used", f.usable, f.members)
	switch left {
	case 0:
		b.WriteString(": for some keys no replica can be reached, so reads of them fail")
	case 1:
		b.WriteString(": r=1 works for every key")
	default:
		fmt.Fprintf(b, ": r up to %d works for every key", left)
	}
	if left >= f.effective(f.minW) && left > 0 {
		fmt.Fprintf(b, ", w up to %d too", left)
	} else {
		fmt.Fprintf(b, "; writes of some keys fail, as they need %d machines", f.effective(f.minW))
	}
}

// effective is what a quorum amounts to in a cluster with fewer members than it is configured for.
func (f facts) effective(q int) int { return min(q, f.replicas) }

func machines(n int) string {
	if n == 1 {
		return "one machine"
	}
	return fmt.Sprintf("%d machines", n)
}

// warnings lists what a person should look at.
func (f facts) warnings() []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if !f.known {
		warn("no storage node has told this gateway of a layout yet")
	}
	if f.known && f.members < f.configured {
		warn("the cluster has %d of the %d members that its number of copies needs", f.members, f.configured)
	}
	if len(f.away) > 0 {
		warn("this gateway cannot use: %s", strings.Join(f.away, ", "))
	}
	if len(f.disputed) > 0 {
		warn("gossip calls failed, though this gateway reaches them: %s", strings.Join(f.disputed, ", "))
	}
	if f.changing != "" && len(f.waitsFor) > 0 {
		warn("the change to layout %s waits for these to %s: %s", f.changing, f.waitsTo, strings.Join(f.waitsFor, ", "))
	}
	if f.known && f.zones > 1 && f.zones < f.replicas {
		warn("the members stand in %d zones, so that a zone holds several of a key's %d copies", f.zones, f.replicas)
	}
	if f.known && f.r+f.w <= f.replicas {
		warn("the defaults r=%d and w=%d do not overlap in %d copies: a read may miss an acknowledged write", f.r, f.w,
			f.replicas)
	}
	if !f.signed {
		warn("no context key is configured: contexts carry a checksum, and anyone can forge them")
	}
	if !f.keysAgree {
		warn("context keys differ between gateways: %s", f.keysReason)
	}
	return out
}
