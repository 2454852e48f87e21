package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/internal/httpapi/edge"
	"github.com/dotring/dotring/gateway/internal/problem"
	"github.com/dotring/dotring/gateway/internal/slowlog"
	clusterv1 "github.com/dotring/dotring/proto/gen/cluster/v1"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

// newMarshaler returns the JSON of every transcoded route: snake_case, defaults emitted, unknown fields refused.
func newMarshaler() *runtime.JSONPb {
	return &runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
	}
}

// newTranscoder returns the generated routes, served by calls in this process.
func (a *API) newTranscoder() (http.Handler, error) {
	none := func(string) (string, bool) { return "", false }
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithIncomingHeaderMatcher(none),
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithWriteContentLength(),
		runtime.WithErrorHandler(transcodeError),
		runtime.WithRoutingErrorHandler(func(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler,
			w http.ResponseWriter, r *http.Request, status int) {
			transcodeError(ctx, mux, m, w, r, &runtime.HTTPStatusError{HTTPStatus: status,
				Err: errors.New(http.StatusText(status))})
		}),
	)
	// What registers services of this process takes a context and has no use for it.
	var ctx context.Context
	if err := kvv1.RegisterKVHandlerServer(ctx, mux, a.cfg.KV); err != nil {
		return nil, fmt.Errorf("kv: %w", err)
	}
	if err := clusterv1.RegisterClusterHandlerServer(ctx, mux, a.cfg.Cluster); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return mux, nil
}

// transcodeError answers what went wrong in a transcoded route with a problem. The generated routes know two kinds of
// errors: those of our services, and gRPC statuses of their own, maybe wrapped with the HTTP status that they really mean.
func transcodeError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request,
	err error) {
	x, ok := w.(*exchange)
	if !ok {
		http.Error(w, "misrouted", http.StatusInternalServerError)
		return
	}
	var routing *runtime.HTTPStatusError
	if errors.As(err, &routing) {
		switch routing.HTTPStatus {
		case http.StatusMethodNotAllowed:
			x.fail(r, problem.ErrMethod)
		case http.StatusNotFound:
			x.fail(r, problem.ErrNoPath)
		default:
			x.fail(r, problem.ErrBadRequest)
		}
		return
	}
	x.fail(r, problem.FromStatus(err))
}

// batch serves the batches: POST with a JSON body of at most 3 MiB.
func (a *API) batch(x *exchange, r *http.Request) {
	if r.Method != http.MethodPost {
		x.methodNotAllowed(r, http.MethodPost)
		return
	}
	room := r.ContentLength
	if room < 0 || room > maxBatchBytes {
		room = maxBatchBytes
	}
	// A batch is held three times: as JSON, as the request, and on its way to the nodes.
	if !x.admit(r, 3*room) {
		return
	}
	body, err := a.batchBody(x, r)
	if err == nil && len(body) == 0 {
		err = fmt.Errorf("%w: it has no body", problem.ErrBadRequest) // an empty list of items is {}
	}
	if err != nil {
		x.fail(r, err)
		return
	}
	again := *r
	again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	x.Header()["Cache-Control"] = a.common.noStore
	ctx := slowlog.With(edge.WithRequestID(r.Context(), x.requestID), &x.course)
	a.transcode.ServeHTTP(x, again.WithContext(access.With(ctx, x.who)))
}

func (a *API) batchBody(x *exchange, r *http.Request) ([]byte, error) {
	if err := noParams(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if x.idFault != nil {
		return nil, x.idFault
	}
	if err := checkEncoding(r); err != nil {
		return nil, err
	}
	if r.ContentLength > maxBatchBytes {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", problem.ErrBatchTooLarge, r.ContentLength, maxBatchBytes)
	}
	body, _, err := x.readBody(r, maxBatchBytes, x.started.Add(edge.MaxTimeout), nil)
	if errors.Is(err, problem.ErrValueTooLarge) {
		return nil, fmt.Errorf("%w: more than %d bytes", problem.ErrBatchTooLarge, maxBatchBytes)
	}
	if err == nil && hasNull(body) {
		err = fmt.Errorf("%w: null stands for nothing: leave the field out", problem.ErrBadRequest)
	}
	return body, err
}

// hasNull says whether JSON has a null anywhere, which the parser of messages would take for a field that is not there. What is no JSON
// is that parser's to refuse.
func hasNull(body []byte) bool {
	if !bytes.Contains(body, []byte("null")) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		if token == nil {
			return true
		}
	}
}

// repair serves the sync point of repair: POST with a JSON body. It lasts as long as the body says, so that it is admitted
// without room for values and holds a place alone.
func (a *API) repair(x *exchange, r *http.Request) {
	if r.Method != http.MethodPost {
		x.methodNotAllowed(r, http.MethodPost)
		return
	}
	x.Header()["Content-Security-Policy"] = a.common.sandbox // as of all that is posted
	if !x.admit(r, 0) {
		return
	}
	body, err := a.batchBody(x, r)
	if err != nil {
		x.fail(r, err)
		return
	}
	again := *r
	again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	x.Header()["Cache-Control"] = a.common.noStore
	a.transcode.ServeHTTP(x, again.WithContext(access.With(edge.WithRequestID(r.Context(), x.requestID), x.who)))
}

// change serves a change of the layout: POST without a body, whose options are parameters.
func (a *API) change(takes ...string) handler {
	return func(x *exchange, r *http.Request) {
		if r.Method != http.MethodPost {
			x.methodNotAllowed(r, http.MethodPost)
			return
		}
		x.Header()["Content-Security-Policy"] = a.common.sandbox // as of all that is posted
		if !x.admit(r, 0) {
			return
		}
		err := checkChange(r.URL.RawQuery, takes)
		switch {
		case err != nil:
		case x.idFault != nil:
			err = x.idFault
		case r.ContentLength != 0:
			err = fmt.Errorf("%w: a change takes no body, its options are parameters", problem.ErrBadRequest)
		case a.crossOrigin.Check(r) != nil:
			err = fmt.Errorf("%w: a page of another origin asks for it", access.ErrDenied)
		}
		if err != nil {
			x.fail(r, err)
			return
		}
		x.Header()["Cache-Control"] = a.common.noStore
		a.transcode.ServeHTTP(x, r.WithContext(access.With(edge.WithRequestID(r.Context(), x.requestID), x.who)))
	}
}

// cluster serves what is asked of the cluster without a key.
func (a *API) cluster(x *exchange, r *http.Request) {
	if !x.readOnly(r) || !x.admit(r, 0) {
		return
	}
	if err := noParams(r.URL.RawQuery); err != nil {
		x.fail(r, err)
		return
	}
	ctx, cancel := x.deadline(r, edge.DefaultTimeout)
	defer cancel()
	x.Header()["Cache-Control"] = a.common.noStore
	again := r.WithContext(access.With(ctx, x.who))
	again.Method = http.MethodGet // HEAD is GET whose body the server leaves out
	a.transcode.ServeHTTP(x, again)
}

// inspect shows what each replica holds of a key. The generated route takes UTF-8 only and folds some escapes, so that
// this one takes its place: any key, by the same function as /v1/kv.
func (a *API) inspect(x *exchange, r *http.Request) {
	if !x.readOnly(r) || !x.admit(r, 0) {
		return
	}
	key, err := parseKey(r.URL, inspectPrefix)
	if err == nil {
		err = x.allow(access.Get, key)
	}
	if err == nil {
		err = noParams(r.URL.RawQuery)
	}
	if err != nil {
		x.fail(r, err)
		return
	}
	req := &clusterv1.InspectKeyRequest{}
	if utf8.Valid(key) {
		req.Key = string(key)
	} else {
		req.KeyBase64 = key
	}
	ctx, cancel := x.deadline(r, edge.DefaultTimeout)
	defer cancel()
	res, err := a.cfg.Cluster.InspectKey(access.With(ctx, x.who), req)
	if err != nil {
		x.fail(r, problem.FromStatus(err))
		return
	}
	body, err := newMarshaler().Marshal(res)
	if err != nil {
		x.fail(r, fmt.Errorf("encode answer: %w", err))
		return
	}
	x.Header()["Cache-Control"] = a.common.noStore
	// What a replica holds comes along in pieces: it must not run here either.
	x.Header()["Content-Security-Policy"] = a.common.sandbox
	x.answer(http.StatusOK, a.common.typeJSON, body)
}
