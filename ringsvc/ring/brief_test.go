package ring

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// A brief is read by whoever has the same layouts, changes and dead marks, and gives the maker's view; by anyone else it is refused.
func TestBrief(t *testing.T) {
	read, refused := 0, 0
	check := func(sample func(*rapid.T) []*View) func(*rapid.T) {
		return func(t *rapid.T) {
			views := sample(t)
			if len(views) == 0 {
				return
			}
			pick := func(name string) *View { return views[rapid.IntRange(0, len(views)-1).Draw(t, name)] }
			for range 3 {
				a := pick("maker")
				for range 3 {
					b := pick("reader")
					before := b.Hash()
					got, err := DecodeBrief(a.EncodeBrief(), b)
					same := bytes.Equal(withoutMarks(a), withoutMarks(b))
					switch {
					case err == nil && bytes.Equal(got.Encode(), a.Encode()):
						read++
					case errors.Is(err, ErrMissingLayout):
						refused++
						if same && a.Frame() == b.Frame() {
							t.Fatal("refused for nothing")
						}
					default:
						t.Fatalf("read: %v\n%s\nby\n%s", err, describe(a), describe(b))
					}
					if err == nil && !same {
						t.Fatal("read by one who knows other layouts")
					}
					if b.Hash() != before {
						t.Fatal("the reader's view was modified")
					}
				}
				if settled, err := BriefSettled(a.EncodeBrief()); err != nil || settled != a.Settled().ID() {
					t.Fatal("settled layout not named")
				}
			}
		}
	}
	t.Run("of views in a running cluster", rapid.MakeCheck(check(sampleViews)))
	t.Run("of arbitrary views", rapid.MakeCheck(check(arbitraryViews)))
	if read < 100 || refused < 100 {
		t.Errorf("%d read, %d refused: that shows nothing", read, refused)
	}
}

func withoutMarks(v *View) []byte {
	c := v.Clone()
	clear(c.marks)
	return c.Encode()
}

// What a change of a large cluster costs each time that two meet.
func TestBriefIsBrief(t *testing.T) {
	v := founded()
	var joins []Change
	for i := range 299 {
		joins = append(joins, Change{Kind: ChangeJoin, Member: Member{ID: NodeID{1, byte(i >> 8), byte(i)}, Name: fmt.Sprint("n", i), Weight: 1}})
	}
	l := propose(t, v, joins...)
	for _, id := range v.Required(l) {
		v.MarkSynced(l.ID(), id)
	}
	if n := len(v.EncodeBrief()); n > 200 {
		t.Errorf("%d bytes", n)
	}
	short := v.EncodeFor(v.Settled().ID())
	if IsBrief(v.Encode()) || !IsBrief(v.EncodeBrief()) || IsShort(v.Encode()) || !IsShort(short) || IsShort(v.EncodeBrief()) {
		t.Error("taken for each other")
	}
	if ClusterOf(v.EncodeBrief()) != v.Cluster() || ClusterOf(short) != v.Cluster() || !ClusterOf(nil).IsZero() {
		t.Error("cluster not named")
	}
	other := NewView(Found(ClusterID{2}, modelMember(0, 7), 3, 2))
	if _, err := DecodeBrief(v.EncodeBrief(), other); !errors.Is(err, ErrForeignCluster) {
		t.Errorf("read in another cluster: %v", err)
	}
}

func FuzzDecodeBrief(f *testing.F) {
	own := goldenViews(f)["view-dead"]
	for _, v := range goldenViews(f) {
		f.Add(v.EncodeBrief())
	}
	fuzzDecoder(f, func(b []byte) (*View, error) {
		v, err := DecodeBrief(b, own)
		if errors.Is(err, ErrForeignCluster) {
			err = ErrMissingLayout
		}
		return v, err
	}, func(_ *testing.T, v *View) []byte { return v.EncodeBrief() })
}
