package grpcapi

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

const (
	// maxItems is the most items a batch has.
	maxItems = 100
	// maxBatchBytes is the most bytes a batch has, and the most bytes of values that answer one.
	maxBatchBytes = 3 << 20
	// batchWorkers is how many items of one batch are under way at once.
	batchWorkers = 16
)

// batchKey is a key of a batch: text where it is UTF-8, else bytes.
type batchKey interface {
	GetKey() string
	GetKeyBase64() []byte
}

// keyOf returns the bytes of a key. The error wraps problem.ErrBadKey.
func keyOf(k batchKey) ([]byte, error) {
	if k.GetKey() != "" && len(k.GetKeyBase64()) > 0 {
		return nil, fmt.Errorf("%w: both key and key_base64 are given", problem.ErrBadKey)
	}
	key := k.GetKeyBase64()
	if k.GetKey() != "" {
		key = []byte(k.GetKey())
	}
	return key, edge.CheckKey(key)
}

// shownKey returns a key as answers carry it.
func shownKey(k batchKey) (text string, raw []byte) {
	if k.GetKey() != "" || len(k.GetKeyBase64()) == 0 {
		return k.GetKey(), nil
	}
	if utf8.Valid(k.GetKeyBase64()) {
		return string(k.GetKeyBase64()), nil
	}
	return "", k.GetKeyBase64()
}

// checkBatch says whether a batch is within its bounds.
func checkBatch(m proto.Message, items int) error {
	if items > maxItems {
		return fmt.Errorf("%w: %d, the limit is %d", problem.ErrTooManyItems, items, maxItems)
	}
	if n := proto.Size(m); n > maxBatchBytes {
		return fmt.Errorf("%w: %d bytes, the limit is %d", problem.ErrBatchTooLarge, n, maxBatchBytes)
	}
	return nil
}

// each calls do for every index below n, at most batchWorkers at once, and returns when all have returned. A panic of do
// goes on in the caller.
func each(n int, do func(i int)) { eachOf(n, batchWorkers, do) }

// eachOf is each with so many workers.
func eachOf(n, workers int, do func(i int)) {
	var next atomic.Int64
	var wait sync.WaitGroup
	var fault atomic.Pointer[any]
	for range min(n, workers) {
		wait.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					fault.Store(&v)
				}
			}()
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wait.Wait()
	if v := fault.Load(); v != nil {
		panic(*v)
	}
}

// batchTimeout reads the timeout of a batch; 0 where it has none.
func batchTimeout(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	return edge.ParseTimeout(s)
}

// BatchGet implements the service.
func (s *KV) BatchGet(ctx context.Context, m *kvv1.BatchGetRequest) (*kvv1.BatchGetResponse, error) {
	if err := checkBatch(m, len(m.GetItems())); err != nil {
		return nil, err
	}
	timeout, err := batchTimeout(m.GetTimeout())
	if err != nil {
		return nil, err
	}
	if err := s.charge(ctx, len(m.GetItems())); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, timeout, false)
	defer cancel()
	id := edge.RequestID(ctx)
	out := &kvv1.BatchGetResponse{Results: make([]*kvv1.BatchGetResult, len(m.GetItems()))}
	var room atomic.Int64
	room.Store(maxBatchBytes)
	each(len(m.GetItems()), func(i int) {
		item := m.GetItems()[i]
		result := &kvv1.BatchGetResult{}
		result.Key, result.KeyBase64 = shownKey(item)
		out.Results[i] = result
		got, err := s.batchRead(ctx, item, m.GetR(), id, &room)
		if err != nil {
			p := problem.Of(err, false, id)
			result.Status, result.Problem = int32(p.Status), p.Proto()
			return
		}
		result.Status, result.Context, result.Etag = int32(got.view.Status), got.token, got.view.ETag()
		result.Siblings = got.view.ProtoSiblings()
	})
	return out, nil
}

// batchRead reads one item, and takes the bytes of its values from the room left in the answer.
func (s *KV) batchRead(ctx context.Context, item batchKey, r, id string, room *atomic.Int64) (found, error) {
	key, err := keyOf(item)
	if err != nil {
		return found{}, err
	}
	got, err := s.forItems().read(ctx, reading{key: key, r: r, requestID: id})
	if err != nil {
		return found{}, err
	}
	size := int64(0)
	for i := range got.view.Shown {
		size += int64(len(got.view.Shown[i].Value))
	}
	if room.Add(-size) < 0 {
		room.Add(size)
		return found{}, fmt.Errorf("%w: its answer would pass %d bytes of values; read this key alone",
			problem.ErrBatchTooLarge, maxBatchBytes)
	}
	return got, nil
}

// BatchPut implements the service.
func (s *KV) BatchPut(ctx context.Context, m *kvv1.BatchPutRequest) (*kvv1.BatchPutResponse, error) {
	if err := checkBatch(m, len(m.GetItems())); err != nil {
		return nil, err
	}
	results, err := s.batchWrite(ctx, len(m.GetItems()), m.GetTimeout(), func(i int) (batchKey, writing) {
		item := m.GetItems()[i]
		return item, writing{value: item.GetValue(), contentType: item.GetContentType(), w: m.GetW(),
			context: item.Context, requestID: item.GetRequestId(), sloppy: m.Sloppy}
	})
	if err != nil {
		return nil, err
	}
	return &kvv1.BatchPutResponse{Results: results}, nil
}

// BatchDelete implements the service.
func (s *KV) BatchDelete(ctx context.Context, m *kvv1.BatchDeleteRequest) (*kvv1.BatchDeleteResponse, error) {
	if err := checkBatch(m, len(m.GetItems())); err != nil {
		return nil, err
	}
	results, err := s.batchWrite(ctx, len(m.GetItems()), m.GetTimeout(), func(i int) (batchKey, writing) {
		item := m.GetItems()[i]
		return item, writing{tombstone: true, w: m.GetW(), context: item.Context, requestID: item.GetRequestId(),
			sloppy: m.Sloppy}
	})
	if err != nil {
		return nil, err
	}
	return &kvv1.BatchDeleteResponse{Results: results}, nil
}

// batchWrite writes n items, each by itself.
func (s *KV) batchWrite(ctx context.Context, n int, timeout string, item func(i int) (batchKey, writing)) (
	[]*kvv1.BatchWriteResult, error) {
	limit, err := batchTimeout(timeout)
	if err != nil {
		return nil, err
	}
	if err := s.charge(ctx, n); err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, limit, true)
	defer cancel()
	id := edge.RequestID(ctx)
	results := make([]*kvv1.BatchWriteResult, n)
	each(n, func(i int) {
		named, w := item(i)
		result := &kvv1.BatchWriteResult{Status: 200}
		result.Key, result.KeyBase64 = shownKey(named)
		results[i] = result
		w.trace = id
		var err error
		var done written
		if w.key, err = keyOf(named); err == nil {
			done, err = s.forItems().write(ctx, w)
		}
		if err != nil {
			p := problem.Of(err, true, id)
			result.Status, result.Problem = int32(p.Status), p.Proto()
			return
		}
		result.Context, result.Siblings, result.Acks, result.Hinted = done.token, done.siblings, done.acks, done.hinted
	})
	return results, nil
}
