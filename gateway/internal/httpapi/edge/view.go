package edge

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dotring/dotring/gateway/internal/problem"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	"github.com/dotring/dotring/ringsvc/causal"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// View is a record as a client sees it. Values alias the record.
type View struct {
	// Shown holds the siblings without those that look alike.
	Shown []causal.Sibling
	// Status is 200 for one value, 404 for tombstones alone or nothing, else 300.
	Status int
}

// ViewOf returns what a client sees of a record.
func ViewOf(s causal.Set) View {
	shown := s.Shown()
	live := 0
	for i := range shown {
		if !shown[i].Tombstone {
			live++
		}
	}
	switch {
	case live == 0:
		return View{Shown: shown, Status: http.StatusNotFound}
	case len(shown) == 1:
		return View{Shown: shown, Status: http.StatusOK}
	default:
		return View{Shown: shown, Status: http.StatusMultipleChoices}
	}
}

// Pick returns the view of the one sibling whose tag is etag. The error wraps problem.ErrNoSibling.
func (v View) Pick(etag string) (View, error) {
	for i := range v.Shown {
		if Tag(&v.Shown[i]) != etag {
			continue
		}
		status := http.StatusOK
		if v.Shown[i].Tombstone {
			status = http.StatusNotFound
		}
		return View{Shown: v.Shown[i : i+1], Status: status}, nil
	}
	return View{Status: http.StatusNotFound}, fmt.Errorf("%w; the record has %d siblings", problem.ErrNoSibling, len(v.Shown))
}

// ETag returns the strong entity tag of the view, without quotes; empty where there is no value.
func (v View) ETag() string {
	switch v.Status {
	case http.StatusOK:
		return Tag(&v.Shown[0])
	case http.StatusMultipleChoices:
		return tagOfAll(v.Shown)
	default:
		return ""
	}
}

// LastModified returns when the newest sibling was written, by the clock of the node that minted it, but never a time
// after now; zero where there is nothing.
func (v View) LastModified(now time.Time) time.Time {
	var newest uint64
	for i := range v.Shown {
		newest = max(newest, v.Shown[i].Time)
	}
	if newest == 0 {
		return time.Time{}
	}
	if t := Time(newest); t.Before(now) {
		return t
	}
	return now
}

// Time returns the wall time of a hybrid logical clock, in UTC.
func Time(hlc uint64) time.Time { return time.UnixMilli(int64(hlc >> 16)).UTC() }

// Tag returns the strong entity tag of one sibling, 32 hexadecimal digits without quotes: XXH3-128 over the hashes of its
// bytes and its content type, equal on every gateway. It tells values apart and is no proof against someone who builds
// two values with one hash.
func Tag(s *causal.Sibling) string {
	var in [33]byte
	value, kind := xxh3.Hash128(s.Value).Bytes(), xxh3.HashString128(s.ContentType).Bytes()
	copy(in[:], value[:])
	copy(in[16:], kind[:])
	if s.Tombstone {
		in[32] = 1
	}
	return hexTag(in[:])
}

// tagOfAll hashes the sorted tags of siblings.
func tagOfAll(siblings []causal.Sibling) string {
	tags := make([]string, len(siblings))
	for i := range siblings {
		tags[i] = Tag(&siblings[i])
	}
	slices.Sort(tags)
	in := make([]byte, 0, 32*len(tags))
	for _, t := range tags {
		in = append(in, t...)
	}
	return hexTag(in)
}

func hexTag(in []byte) string {
	sum := xxh3.Hash128(in).Bytes()
	var text [32]byte
	hex.Encode(text[:], sum[:])
	return string(text[:])
}

// ProtoSiblings returns the siblings of the view as messages, none where there is no value.
func (v View) ProtoSiblings() []*kvv1.Sibling {
	if v.Status == http.StatusNotFound {
		return nil
	}
	out := make([]*kvv1.Sibling, len(v.Shown))
	for i := range v.Shown {
		s := &v.Shown[i]
		out[i] = &kvv1.Sibling{Value: s.Value, ContentType: s.ContentType, Etag: Tag(s),
			LastModified: timestamppb.New(Time(s.Time)), Tombstone: s.Tombstone}
	}
	return out
}
