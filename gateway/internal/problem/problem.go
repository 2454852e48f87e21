// Package problem turns errors into what clients see: one table to HTTP problems (RFC 9457), one to gRPC codes.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/limit"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// TypePrefix is what the type of every problem begins with. Types are relative references and never change their
// meaning; a new meaning is a new type.
const TypePrefix = "/problems/"

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// Faults that the gateway's edge finds by itself, before or instead of asking the coordinator. They are wrapped with what
// is wrong; the text of the whole chain is shown to the client.
var (
	ErrBadKey             = errors.New("bad key")
	ErrBadParameter       = errors.New("bad parameter")
	ErrBadRequestID       = errors.New("bad request id")
	ErrBadContentType     = errors.New("bad content type")
	ErrBadRequest         = errors.New("bad request")
	ErrBodyCutShort       = errors.New("the body ended before its announced length")
	ErrTooManyItems       = errors.New("too many items")
	ErrNoPath             = errors.New("no such path")
	ErrNoValue            = errors.New("the key has no value")
	ErrNoNode             = errors.New("no such node")
	ErrChangeRefused      = errors.New("the change is refused")
	ErrNoSibling          = errors.New("no sibling has this etag")
	ErrMethod             = errors.New("the path does not take this method")
	ErrValueTooLarge      = errors.New("the value is too large")
	ErrBatchTooLarge      = errors.New("the batch is too large")
	ErrURITooLong         = errors.New("the request's URI is too long")
	ErrEncoding           = errors.New("content encodings are not taken: send the bytes as they shall be stored")
	ErrOverloaded         = errors.New("the gateway has too many requests under way")
	ErrConditionalWrite   = errors.New("conditional writes are not offered: send the Kv-Context of the read instead")
	ErrNotImplemented     = errors.New("not implemented")
	ErrNoLayout           = errors.New("the gateway knows no layout yet")
	ErrDeadline           = errors.New("the deadline passed")
	ErrCanceled           = errors.New("the client went away")
	ErrShuttingDown       = errors.New("the gateway is shutting down")
	errNotFoundGRPC       = errors.New("not found")
	errUnavailable        = errors.New("unavailable")
	errPreconditionFailed = errors.New("failed precondition")
)

// Problem is what went wrong with one request, as its client is told.
type Problem struct {
	Type      string // relative URI
	Title     string // constant for the type
	Status    int    // HTTP
	Detail    string // may be empty
	Outcome   string // of a failed write as coordinator.Outcome spells it, else empty
	Replicas  []coordinator.Report
	RequestID string
	// Wait is after how long it makes sense to try again, where that is known; else 0.
	Wait time.Duration
}

// Of returns the problem of err, which is not nil. write says that the request was a write: one that failed before the
// coordinator took it was not applied, and one that failed in an unknown way is in doubt.
func Of(err error, write bool, requestID string) Problem {
	row := &internalRow
	for i := range httpTable {
		if httpTable[i].match(err) {
			row = &httpTable[i]
			break
		}
	}
	p := Problem{Type: TypePrefix + row.slug, Title: row.title, Status: row.status, RequestID: requestID}
	var ce *coordinator.Error
	if errors.As(err, &ce) {
		p.Replicas = ce.Replicas
	}
	if row != &internalRow {
		p.Detail = detail(err, ce)
	}
	var exceeded *limit.Exceeded
	if errors.As(err, &exceeded) {
		p.Wait = exceeded.Wait
	}
	if write {
		p.Outcome = outcome(err, ce, row == &internalRow)
	}
	return p
}

// Replicas returns what the replicas did in the operation that failed with err, where any was chosen.
func Replicas(err error) []coordinator.Report {
	var ce *coordinator.Error
	if errors.As(err, &ce) {
		return ce.Replicas
	}
	return nil
}

// outcome says what became of a write that failed with err.
func outcome(err error, ce *coordinator.Error, internal bool) string {
	switch {
	case ce != nil && ce.Outcome == coordinator.NotApplied:
		return coordinator.NotApplied.String()
	case ce != nil || internal || errors.Is(err, ErrCanceled) || errors.Is(err, context.Canceled):
		return coordinator.InDoubt.String()
	default:
		return coordinator.NotApplied.String()
	}
}

// detail is the text of an error that the table knows. The kind and the outcome of a coordinator's error have fields of
// their own, and what an internal error says is for the log alone.
func detail(err error, ce *coordinator.Error) string {
	switch {
	case ce == nil:
		return err.Error()
	case ce.Err == nil || ce.Kind == coordinator.Internal:
		return ""
	default:
		return ce.Err.Error()
	}
}

// RetryAfter says after how many seconds the client may try again; 0 where trying again makes no sense by itself.
func (p Problem) RetryAfter() int {
	switch p.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return int(max(1, (p.Wait+time.Second-1)/time.Second))
	default:
		return 0
	}
}

type jsonProblem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Detail    string       `json:"detail"`
	Outcome   string       `json:"outcome,omitempty"`
	Replicas  []jsonReport `json:"replicas,omitempty"`
	RequestID string       `json:"request_id"`
}

type jsonReport struct {
	Node     string      `json:"node"`
	Did      string      `json:"did"`
	Detail   string      `json:"detail"`
	AtUs     string      `json:"at_us"`
	Clock    []jsonEntry `json:"clock"`
	Repaired bool        `json:"repaired"`
}

type jsonEntry struct {
	Actor   string `json:"actor"`
	Counter string `json:"counter"`
}

// JSON returns the body of the answer. Counters are strings, as they may pass 2^53.
func (p Problem) JSON() []byte {
	b, err := json.Marshal(jsonProblem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail,
		Outcome: p.Outcome, Replicas: jsonReports(p.Replicas, true), RequestID: p.RequestID})
	if err != nil {
		// Only strings and numbers are encoded, which cannot fail.
		return []byte(`{"type":"` + TypePrefix + `internal","title":"Internal error","status":500}`)
	}
	return b
}

// ReportsJSON returns reports as a JSON array, the clocks left out unless asked for.
func ReportsJSON(reports []coordinator.Report, clocks bool) []byte {
	b, err := json.Marshal(jsonReports(reports, clocks))
	if err != nil || reports == nil {
		return []byte("[]")
	}
	return b
}

func jsonReports(reports []coordinator.Report, clocks bool) []jsonReport {
	out := make([]jsonReport, len(reports))
	for i, r := range reports {
		out[i] = jsonReport{Node: NodeName(r), Did: r.Did, Detail: r.Detail,
			AtUs: strconv.FormatInt(r.At.Microseconds(), 10), Clock: []jsonEntry{}, Repaired: r.Repaired}
		for _, e := range r.Clock {
			if !clocks {
				break
			}
			out[i].Clock = append(out[i].Clock, jsonEntry{Actor: e.Actor.String(), Counter: strconv.FormatUint(e.Counter, 10)})
		}
	}
	return out
}

// NodeName is what people call the node of a report: its name where it is known, else its id.
func NodeName(r coordinator.Report) string {
	if r.Name != "" {
		return r.Name
	}
	return r.Node.String()
}

// Proto returns p as the message that batches and gRPC details carry.
func (p Problem) Proto() *kvv1.Problem {
	return &kvv1.Problem{Type: p.Type, Title: p.Title, Status: int32(p.Status), Detail: p.Detail, Outcome: p.Outcome,
		Replicas: ProtoReports(p.Replicas), RequestId: p.RequestID}
}

// ProtoReports returns reports as messages; nil for none.
func ProtoReports(reports []coordinator.Report) []*kvv1.ReplicaReport {
	var out []*kvv1.ReplicaReport
	for _, r := range reports {
		m := &kvv1.ReplicaReport{Node: NodeName(r), Did: r.Did, Detail: r.Detail,
			AtUs: uint64(max(r.At.Microseconds(), 0)), Repaired: r.Repaired}
		for _, e := range r.Clock {
			m.Clock = append(m.Clock, &kvv1.ClockEntry{Actor: e.Actor.String(), Counter: e.Counter})
		}
		out = append(out, m)
	}
	return out
}
