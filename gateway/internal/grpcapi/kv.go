// Package grpcapi is the gateway's public gRPC API, served over gRPC and, in the process, to grpc-gateway.
package grpcapi

import (
	"context"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	"github.com/dotring/dotring/gateway/listing"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	"github.com/dotring/dotring/ringsvc/causal"
)

// Store is what the KV service calls. The slices of a request belong to the store from then on.
type Store interface {
	Get(ctx context.Context, r coordinator.GetRequest) (coordinator.GetResult, error)
	Put(ctx context.Context, r coordinator.PutRequest) (coordinator.PutResult, error)
}

// KV is the key-value service. It is safe for concurrent use.
//
// Its errors are plain ones, for the tables of package problem to read: over gRPC the interceptor of this package turns
// them into statuses.
type KV struct {
	kvv1.UnimplementedKVServer
	store         Store
	tokens        edge.Tokens
	guard         *access.Guard
	maxValueBytes int
	// lister lists keys; nil: listing is not implemented.
	lister Lister
	// items serves the items of batches; nil: this one does.
	items *KV
}

// Lister lists keys by prefix.
type Lister interface {
	List(ctx context.Context, prefix []byte, from listing.Position, limit int) (listing.Page, error)
}

// NewKV returns the service over store, for those whom guard lets; nil lets everybody. No value is larger than
// maxValueBytes.
func NewKV(store Store, tokens edge.Tokens, guard *access.Guard, maxValueBytes int) *KV {
	return &KV{store: store, tokens: tokens, guard: guard, maxValueBytes: maxValueBytes}
}

// allow says whether whoever asks may do action to key.
func (s *KV) allow(ctx context.Context, action access.Action, key []byte) error {
	return allow(ctx, s.guard, action, key)
}

func allow(ctx context.Context, guard *access.Guard, action access.Action, key []byte) error {
	who, err := guard.From(ctx)
	if err == nil && !who.Allows(action, key) {
		err = fmt.Errorf("%w: %s of this key", access.ErrDenied, action)
	}
	if err != nil {
		guard.Denied(who, edge.RequestID(ctx), fmt.Sprintf("%s %q", action, key))
	}
	return err
}

// charge takes the items of a batch from the limits of whoever asks, who has entered. Who is not known is refused later, with each item.
func (s *KV) charge(ctx context.Context, n int) error {
	who, err := s.guard.From(ctx)
	if err != nil {
		return nil
	}
	return who.Charge(n, time.Now())
}

// ListsBy makes lister list keys, before the first call.
func (s *KV) ListsBy(lister Lister) { s.lister = lister }

// BatchesTo makes the items of batches go to another store, before the first call.
func (s *KV) BatchesTo(store Store) { s.items = NewKV(store, s.tokens, s.guard, s.maxValueBytes) }

// forItems returns what serves the items of a batch.
func (s *KV) forItems() *KV {
	if s.items != nil {
		return s.items
	}
	return s
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Get implements the service.
func (s *KV) Get(ctx context.Context, m *kvv1.GetRequest) (*kvv1.GetResponse, error) {
	ctx, cancel := withTimeout(ctx, 0, false)
	defer cancel()
	found, err := s.read(ctx, reading{key: m.GetKey(), r: m.GetR(), context: m.GetContext(), explain: m.GetExplain(),
		requestID: edge.RequestID(ctx)})
	if err != nil {
		return nil, err
	}
	out := &kvv1.GetResponse{Siblings: found.view.ProtoSiblings(), Context: found.token, Etag: found.view.ETag()}
	switch found.view.Status {
	case 200:
		out.State = kvv1.State_STATE_VALUE
	case 300:
		out.State = kvv1.State_STATE_CONFLICT
	default:
		out.State = kvv1.State_STATE_ABSENT
	}
	if m.GetExplain() {
		out.Explain = problem.ProtoReports(found.reports)
	}
	return out, nil
}

// reading is one read, from any surface.
type reading struct {
	key        []byte
	r, context string
	explain    bool
	requestID  string
}

type found struct {
	view    edge.View
	token   string
	reports []coordinator.Report
}

func (s *KV) read(ctx context.Context, m reading) (found, error) {
	if err := edge.CheckKey(m.key); err != nil {
		return found{}, err
	}
	if err := s.allow(ctx, access.Get, m.key); err != nil {
		return found{}, err
	}
	q, err := edge.ParseQuorum("r", m.r)
	if err != nil {
		return found{}, err
	}
	var seen *causal.Context
	if m.context != "" {
		c, err := s.tokens.Decode(m.key, m.context)
		if err != nil {
			return found{}, err
		}
		seen = &c
	}
	course, began := slowlog.From(ctx), time.Now()
	span := course.Operation("get", m.key)
	res, err := s.store.Get(ctx, coordinator.GetRequest{Key: m.key, R: q, Context: seen, Explain: m.explain,
		SlowAfter: course.SlowAfter(), Trace: m.requestID, Span: span})
	course.Read(span, m.key, began, &res, err)
	if err != nil {
		return found{}, err
	}
	token, err := s.tokens.Encode(m.key, causal.Context{Vector: res.Set.Clock}, res.Set.Siblings)
	if err != nil {
		return found{}, err
	}
	return found{view: edge.ViewOf(res.Set), token: token, reports: res.Reports}, nil
}

// Put implements the service.
func (s *KV) Put(ctx context.Context, m *kvv1.PutRequest) (*kvv1.PutResponse, error) {
	ctx, cancel := withTimeout(ctx, 0, true)
	defer cancel()
	done, err := s.write(ctx, writing{key: m.GetKey(), value: m.GetValue(), contentType: m.GetContentType(), w: m.GetW(),
		context: m.Context, requestID: m.GetRequestId(), sloppy: m.Sloppy})
	if err != nil {
		return nil, err
	}
	return &kvv1.PutResponse{Context: done.token, Siblings: done.siblings, Acks: done.acks, Hinted: done.hinted}, nil
}

// Delete implements the service.
func (s *KV) Delete(ctx context.Context, m *kvv1.DeleteRequest) (*kvv1.DeleteResponse, error) {
	ctx, cancel := withTimeout(ctx, 0, true)
	defer cancel()
	done, err := s.write(ctx, writing{key: m.GetKey(), tombstone: true, w: m.GetW(), context: m.Context,
		requestID: m.GetRequestId(), sloppy: m.Sloppy})
	if err != nil {
		return nil, err
	}
	return &kvv1.DeleteResponse{Context: done.token, Siblings: done.siblings, Acks: done.acks, Hinted: done.hinted}, nil
}

// writing is one write, from any surface.
type writing struct {
	key, value  []byte
	contentType string
	tombstone   bool
	w           string
	context     *string
	requestID   string // empty: the client did not name the write
	trace       string // empty: the request id
	sloppy      *bool
}

type written struct {
	token                  string
	siblings, acks, hinted uint32
}

func (s *KV) write(ctx context.Context, m writing) (written, error) {
	req, err := s.writeRequest(ctx, m)
	if err != nil {
		return written{}, err
	}
	course, began := slowlog.From(ctx), time.Now()
	req.SlowAfter, req.Span = course.SlowAfter(), course.Operation("put", m.key)
	res, err := s.store.Put(ctx, req)
	course.Wrote(req.Span, m.key, began, &res, err)
	if err != nil {
		return written{}, err
	}
	token, err := s.tokens.Encode(m.key, res.Context, nil)
	if err != nil {
		// The write was done; only its context cannot be told.
		return written{}, &coordinator.Error{Kind: coordinator.Internal, Outcome: coordinator.InDoubt, Err: err}
	}
	return written{token: token, siblings: uint32(res.Siblings), acks: uint32(res.Acks), hinted: uint32(res.Hinted)}, nil
}

// writeRequest checks all there is to check before any node is asked.
func (s *KV) writeRequest(ctx context.Context, m writing) (coordinator.PutRequest, error) {
	req := coordinator.PutRequest{Key: m.key, Value: m.value, ContentType: m.contentType, Tombstone: m.tombstone,
		RequestID: m.requestID, ClientRequestID: m.requestID != "", Trace: m.trace, Sloppy: m.sloppy == nil || *m.sloppy}
	err := edge.CheckKey(m.key)
	if err == nil {
		action := access.Put
		if m.tombstone {
			action = access.Delete
		}
		err = s.allow(ctx, action, m.key)
	}
	if err == nil {
		req.W, err = edge.ParseQuorum("w", m.w)
	}
	if err == nil {
		err = edge.CheckContentType(m.contentType)
	}
	if err == nil && m.requestID != "" {
		err = edge.CheckRequestID(m.requestID)
	}
	if err == nil && len(m.value) > s.maxValueBytes {
		err = fmt.Errorf("%w: %d bytes, the limit is %d", problem.ErrValueTooLarge, len(m.value), s.maxValueBytes)
	}
	if err != nil {
		return req, err
	}
	if m.context != nil {
		c, err := s.tokens.Decode(m.key, *m.context)
		if err != nil {
			return req, err
		}
		req.Context = &c
	}
	if !m.tombstone {
		if req.ContentType == "" {
			req.ContentType = edge.DefaultContentType
		}
		if req.Value == nil {
			req.Value = []byte{}
		}
		req.Checksum = crc32.Checksum(req.Value, castagnoli)
	}
	if req.RequestID == "" {
		req.RequestID = edge.NewRequestID()
	}
	if req.Trace == "" {
		req.Trace = edge.RequestID(ctx)
	}
	return req, nil
}

// withTimeout bounds a call by the caller's deadline and by timeout, whichever comes first; by the default where there is
// neither (timeout 0), and always by the most a request may take. A write that has begun is finished also when its client
// goes away: given up half-way it would be in doubt for nothing.
func withTimeout(ctx context.Context, timeout time.Duration, write bool) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if write {
		ctx = context.WithoutCancel(ctx)
	}
	if timeout == 0 {
		timeout = edge.MaxTimeout
		if !ok {
			timeout = edge.DefaultTimeout
		}
	}
	limit := time.Now().Add(timeout)
	if !ok || deadline.After(limit) {
		deadline = limit
	}
	return context.WithDeadline(ctx, deadline)
}
