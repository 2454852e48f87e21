package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	"github.com/dotring/dotring/gateway/limit"
)

// exchange is one request and its answer. It stands in for the ResponseWriter, so that it reaches the handlers through
// the router without a context value. It belongs to one goroutine and is used again after the request.
type exchange struct {
	http.ResponseWriter
	api      *API
	op       op
	write    bool // the request is a write, so that its problems carry an outcome
	kv       bool // the path is under /v1/kv
	bodyUsed bool // the body was read to its end, or failed
	named    bool // the client named the request
	idFault  error
	bodyRoom int64 // bytes reserved for the body, and taken by the answer
	// admittedBy is where the exchange took a place; nil: nowhere.
	admittedBy *Admission
	status     int
	bytesIn    int64
	bytesOut   int64
	started    time.Time
	requestID  string
	who        *access.Principal // who asks; nil where everybody may do everything
	entered    bool              // a place of who was taken
	values     *[6]string        // backing of the header values of this answer; not used again
	valuesLen  int
	err        error // what the answer was made of, for the log
	course     slowlog.Course
}

type exchangePool struct{ pool sync.Pool }

func (p *exchangePool) get() *exchange {
	if x, ok := p.pool.Get().(*exchange); ok {
		return x
	}
	return new(exchange)
}

func (p *exchangePool) put(x *exchange) {
	*x = exchange{}
	p.pool.Put(x)
}

func (x *exchange) begin(a *API, w http.ResponseWriter, r *http.Request) {
	x.ResponseWriter, x.api, x.started, x.values = w, a, a.cfg.Now(), new([6]string)
	x.kv, x.course.Log = underKV(r), a.cfg.Slow
	switch r.Method {
	case http.MethodPut, http.MethodPost, http.MethodDelete:
		x.write = x.kv
	}
	switch ids := r.Header["Kv-Request-Id"]; {
	case len(ids) > 1:
		x.idFault = fmt.Errorf("%w: there are %d of them", problem.ErrBadRequestID, len(ids))
	case len(ids) == 1:
		if x.idFault = edge.CheckRequestID(ids[0]); x.idFault == nil {
			x.requestID, x.named = ids[0], true
		}
	}
	if x.requestID == "" {
		x.requestID = edge.NewRequestID()
	}
	h := w.Header()
	h["Kv-Request-Id"] = x.value(x.requestID)
	h["X-Content-Type-Options"] = a.common.nosniff
	h["Vary"] = a.common.vary
	if x.kv {
		// Values share an origin with pages: whatever a value is, it must not run there.
		h["Content-Security-Policy"] = a.common.sandbox
	}
	a.metrics.inFlight.Inc()
}

// underKV says whether the path belongs to the key-value API.
func underKV(r *http.Request) bool {
	const p = "/v1/kv"
	return len(r.URL.Path) >= len(p) && r.URL.Path[:len(p)] == p &&
		(len(r.URL.Path) == len(p) || r.URL.Path[len(p)] == '/' || r.URL.Path[len(p)] == ':')
}

// value returns s as the values of one header, in memory that the exchange allocated once.
func (x *exchange) value(s string) []string {
	if x.valuesLen == len(x.values) {
		return []string{s}
	}
	i := x.valuesLen
	x.values[i] = s
	x.valuesLen++
	return x.values[i : i+1 : i+1]
}

// WriteHeader notes the status on its way.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && status >= 200 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write notes the size on its way.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytesOut += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// answer writes a whole answer. Errors of the connection are noted for the log: no one is left to be told.
func (x *exchange) answer(status int, contentType []string, body []byte) {
	h := x.Header()
	h["Content-Type"] = contentType
	h["Content-Length"] = x.value(strconv.Itoa(len(body)))
	x.WriteHeader(status)
	if _, err := x.Write(body); err != nil && x.err == nil {
		x.err = fmt.Errorf("write answer: %w", err)
	}
}

func (x *exchange) text(status int, body string) {
	x.Header()["Cache-Control"] = x.api.common.noStore
	x.answer(status, x.value("text/plain; charset=utf-8"), []byte(body))
}

// fail answers with the problem of err, and then takes what is left of the body, so that clients that read only once
// they have sent everything see the answer.
func (x *exchange) fail(r *http.Request, err error) {
	if errors.Is(err, access.ErrDenied) || errors.Is(err, access.ErrUnauthenticated) {
		x.deny(r, err)
		return
	}
	x.failWith(r, problem.Of(err, x.write, x.requestID), err)
}

func (x *exchange) failWith(r *http.Request, p problem.Problem, err error) {
	x.err = err
	if errors.Is(err, limit.ErrExceeded) {
		x.api.metrics.limited.Inc()
	}
	h := x.Header()
	h["Cache-Control"] = x.api.common.noStore
	if s := p.RetryAfter(); s > 0 {
		h["Retry-After"] = x.value(strconv.Itoa(s))
	}
	h.Del("Etag")
	h.Del("Last-Modified")
	pending := x.bodyPending(r)
	control := http.NewResponseController(x.ResponseWriter)
	if pending {
		// Without this, net/http itself would read a part of the body before it lets the answer go.
		if err := control.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			h["Connection"] = []string{"close"}
		}
		if r.ContentLength > maxDrain {
			h["Connection"] = []string{"close"}
		}
	}
	x.answer(p.Status, x.api.common.typeProblem, p.JSON())
	if pending {
		x.drain(r, control)
	}
}

const (
	// maxDrain is how much of a refused body is read so that the client sees the answer.
	maxDrain = 8 << 20
	// drainTime is how long that may take.
	drainTime = 5 * time.Second
)

// bodyPending says whether the client is sending a body that was not read. One that waits for "100 Continue" sends none.
func (x *exchange) bodyPending(r *http.Request) bool {
	return !x.bodyUsed && r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 && r.Header.Get("Expect") == ""
}

func (x *exchange) drain(r *http.Request, control *http.ResponseController) {
	x.bodyUsed = true
	if control.Flush() != nil || control.SetReadDeadline(x.api.cfg.Now().Add(drainTime)) != nil {
		return
	}
	// Whether the client sent all of it or gave up makes no difference any more.
	n, err := io.CopyN(io.Discard, r.Body, maxDrain)
	x.bytesIn += n
	if err == nil {
		return
	}
	if errors.Is(err, io.EOF) && control.SetReadDeadline(time.Time{}) == nil {
		return
	}
	x.err = errors.Join(x.err, fmt.Errorf("drain body: %w", err))
}

func (x *exchange) methodNotAllowed(r *http.Request, allow string) {
	x.Header()["Allow"] = x.value(allow)
	x.fail(r, fmt.Errorf("%w: %s", problem.ErrMethod, allow))
}

// enter says whether the sender may ask this at all, as far as it shows without the key, and answers where not. What tells
// nothing of the cluster and its keys is open to everybody.
func (x *exchange) enter(r *http.Request) bool {
	if x.op == opHealth || x.op == opOther {
		return true
	}
	var err error
	x.who, err = x.api.cfg.Guard.Authenticate(r.Header["Authorization"])
	if err == nil && (x.op == opCluster || x.op == opBackup) && !x.who.Administers() {
		err = fmt.Errorf("%w: it needs admin", access.ErrDenied)
	}
	if err != nil {
		x.deny(r, err)
		return false
	}
	if (x.op == opCluster || x.op == opBackup) && r.Method != http.MethodGet && r.Method != http.MethodHead {
		x.api.cfg.Guard.Administered(x.who, x.requestID, r.Method+" "+r.URL.EscapedPath())
	}
	return true
}

// allow says whether the sender may do action to key.
func (x *exchange) allow(action access.Action, key []byte) error {
	if !x.who.Allows(action, key) {
		return fmt.Errorf("%w: %s of this key", access.ErrDenied, action)
	}
	return nil
}

// deny answers 401 or 403.
func (x *exchange) deny(r *http.Request, err error) {
	if errors.Is(err, access.ErrUnauthenticated) {
		x.Header()["Www-Authenticate"] = []string{`Bearer realm="dotring"`}
	}
	x.api.metrics.denied.Inc()
	x.api.cfg.Guard.Denied(x.who, x.requestID, r.Method+" "+r.URL.EscapedPath())
	x.failWith(r, problem.Of(err, x.write, x.requestID), err)
}

// readOnly answers all but GET and HEAD with 405.
func (x *exchange) readOnly(r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	x.methodNotAllowed(r, allowRead)
	return false
}

// admit takes a place among the requests under way, and among those of who asks, and room for a body of up to bodyBytes; without one it
// answers 429. What the store would refuse is refused here, before its body is read. What operates the cluster has no limits of its own.
func (x *exchange) admit(r *http.Request, bodyBytes int64) bool {
	if x.op != opCluster && x.op != opBackup {
		if err := x.who.Enter(x.started); err != nil {
			x.fail(r, err)
			return false
		}
		x.entered = true
	}
	by, background := x.api.cfg.Admission, x.op >= opBatchGet && x.op <= opBatchDelete
	switch {
	case x.op == opCluster:
		by = by.Reserved()
	case x.op != opBackup && x.api.cfg.Overload != nil && x.api.cfg.Overload.Full(x.write, background):
		by = nil
	}
	if by == nil || !by.Enter(bodyBytes) {
		x.api.metrics.rejected.Inc()
		x.fail(r, problem.ErrOverloaded)
		return false
	}
	x.admittedBy, x.bodyRoom = by, bodyBytes
	return true
}

// hold takes room for n bytes of an answer.
func (x *exchange) hold(n int) {
	if x.admittedBy != nil {
		x.admittedBy.Hold(int64(n))
		x.bodyRoom += int64(n)
	}
}

func (x *exchange) release() {
	if x.admittedBy != nil {
		x.admittedBy.Leave(x.bodyRoom)
	}
	if x.entered {
		x.who.Leave()
	}
	x.api.metrics.inFlight.Dec()
}

// deadline returns the context of the request's work. A write that has begun is finished also when its client goes away:
// given up half-way it would be in doubt for nothing.
func (x *exchange) deadline(r *http.Request, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithDeadline(x.work(r), x.started.Add(timeout))
}

// until is deadline for the store's Get and Put, which look at the time themselves.
func (x *exchange) until(r *http.Request, timeout time.Duration) context.Context {
	return deadlineContext{x.work(r), x.started.Add(timeout)}
}

func (x *exchange) work(r *http.Request) context.Context {
	if x.write {
		return context.WithoutCancel(r.Context())
	}
	return r.Context()
}

// deadlineContext tells a deadline and does not end by itself: a context that does costs a timer, and a place among its
// parent's children.
type deadlineContext struct {
	context.Context
	at time.Time
}

// Deadline is the deadline told; requests have none of their own that is earlier.
func (c deadlineContext) Deadline() (time.Time, bool) { return c.at, true }
