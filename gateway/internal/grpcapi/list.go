package grpcapi

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/listing"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// ListKeys implements the service. The caller must be allowed to get a key that is the prefix;
// longer keys that it may not get are left out.
func (s *KV) ListKeys(ctx context.Context, m *kvv1.ListKeysRequest) (*kvv1.ListKeysResponse, error) {
	prefix := []byte(m.GetPrefix())
	switch {
	case s.lister == nil:
		return nil, problem.ErrNotImplemented
	case m.GetPrefix() != "" && len(m.GetPrefixBase64()) > 0:
		return nil, fmt.Errorf("%w: both prefix and prefix_base64 are given", problem.ErrBadParameter)
	case len(m.GetPrefixBase64()) > 0:
		prefix = m.GetPrefixBase64()
	}
	if len(prefix) > edge.MaxKeyBytes {
		return nil, fmt.Errorf("%w: a prefix of %d bytes, no key has more than %d", problem.ErrBadParameter, len(prefix), edge.MaxKeyBytes)
	}
	limit := int(m.GetLimit())
	if limit == 0 {
		limit = listing.DefaultLimit
	}
	if limit > listing.MaxLimit {
		return nil, fmt.Errorf("%w: limit %d, at most %d", problem.ErrBadParameter, limit, listing.MaxLimit)
	}
	from, err := listing.ParseCursor(m.GetCursor())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", problem.ErrBadParameter, err)
	}
	who, err := s.guard.From(ctx)
	if err == nil && !who.Allows(access.Get, prefix) {
		err = fmt.Errorf("%w: get of keys with this prefix", access.ErrDenied)
	}
	if err != nil {
		s.guard.Denied(who, edge.RequestID(ctx), fmt.Sprintf("list %q", prefix))
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, 0, false)
	defer cancel()
	page, err := s.lister.List(ctx, prefix, from, limit)
	if err != nil {
		return nil, err
	}
	out := &kvv1.ListKeysResponse{}
	for _, key := range page.Keys {
		switch {
		case !who.Allows(access.Get, key):
		case utf8.Valid(key):
			out.Keys = append(out.Keys, &kvv1.ListedKey{Key: string(key)})
		default:
			out.Keys = append(out.Keys, &kvv1.ListedKey{KeyBase64: key})
		}
	}
	if page.Next != nil {
		out.Cursor = page.Next.Cursor()
	}
	return out, nil
}
