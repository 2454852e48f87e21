package problem

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/dotring/dotring/gateway/access"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/limit"
	"github.com/dotring/dotring/ringsvc/causal"
)

// statusClientClosedRequest is what servers log for a client that went away; it reaches no one.
const statusClientClosedRequest = 499

// fault is what a row of a table stands for: an error of a chain, or a kind of the coordinator's errors.
type fault struct {
	err  error
	kind coordinator.Kind // where err is nil
}

func (f fault) match(err error) bool {
	if f.err != nil {
		return errors.Is(err, f.err)
	}
	var ce *coordinator.Error
	return errors.As(err, &ce) && ce.Kind == f.kind
}

type httpRow struct {
	fault
	status int
	slug   string
	title  string
}

var internalRow = httpRow{status: http.StatusInternalServerError, slug: "internal", title: "Internal error"}

// httpTable maps errors to HTTP, the first match counts; what is in no row is internal.
var httpTable = []httpRow{
	{fault{err: ErrBadKey}, 400, "bad-key", "Bad key"},
	{fault{err: ErrBadParameter}, 400, "bad-parameter", "Bad parameter"},
	{fault{err: causal.ErrToken}, 400, "bad-context", "Bad context"},
	{fault{err: ErrBadRequestID}, 400, "bad-request-id", "Bad request id"},
	{fault{err: ErrBadContentType}, 400, "bad-content-type", "Bad content type"},
	{fault{err: ErrBadRequest}, 400, "bad-request", "Bad request"},
	{fault{err: ErrBodyCutShort}, 400, "body-cut-short", "Body cut short"},
	{fault{err: ErrTooManyItems}, 400, "too-many-items", "Too many items"},
	{fault{kind: coordinator.BadQuorum}, 400, "bad-quorum", "Bad quorum"},
	{fault{err: access.ErrUnauthenticated}, 401, "unauthenticated", "Credentials needed"},
	{fault{err: access.ErrDenied}, 403, "denied", "Not allowed"},
	{fault{err: ErrNoPath}, 404, "no-such-path", "No such path"},
	{fault{err: ErrNoValue}, 404, "no-value", "No value"},
	{fault{err: ErrNoSibling}, 404, "no-such-sibling", "No such sibling"},
	{fault{err: ErrNoNode}, 404, "no-such-node", "No such node"},
	{fault{err: errNotFoundGRPC}, 404, "not-found", "Not found"},
	{fault{err: ErrMethod}, 405, "method-not-allowed", "Method not allowed"},
	{fault{err: ErrChangeRefused}, 409, "change-refused", "Change refused"},
	{fault{kind: coordinator.TooManySiblings}, 409, "too-many-siblings", "Too many siblings"},
	{fault{err: causal.ErrClockTooLarge}, 409, "clock-too-large", "Clock too large"},
	{fault{kind: coordinator.TooLarge}, 409, "record-too-large", "Record too large"},
	{fault{kind: coordinator.StaleContext}, 410, "stale-context", "Context too old"},
	{fault{err: errPreconditionFailed}, 400, "failed-precondition", "Failed precondition"},
	{fault{err: ErrValueTooLarge}, 413, "value-too-large", "Value too large"},
	{fault{err: ErrBatchTooLarge}, 413, "batch-too-large", "Batch too large"},
	{fault{err: ErrURITooLong}, 414, "uri-too-long", "URI too long"},
	{fault{err: ErrEncoding}, 415, "unsupported-encoding", "Unsupported content encoding"},
	{fault{err: limit.ErrExceeded}, 429, "rate-limited", "Rate limited"},
	{fault{err: ErrOverloaded}, 429, "overloaded", "Overloaded"},
	{fault{kind: coordinator.Overloaded}, 429, "overloaded", "Overloaded"},
	{fault{err: ErrConditionalWrite}, 501, "conditional-write-unsupported", "Conditional write unsupported"},
	{fault{err: ErrNotImplemented}, 501, "not-implemented", "Not implemented"},
	{fault{err: ErrNoLayout}, 503, "no-layout", "No layout"},
	{fault{err: ErrShuttingDown}, 503, "shutting-down", "Shutting down"},
	{fault{kind: coordinator.NoLayout}, 503, "no-layout", "No layout"},
	{fault{kind: coordinator.QuorumImpossible}, 503, "quorum-impossible", "Quorum impossible"},
	{fault{kind: coordinator.StaleRead}, 503, "stale-read", "Stale read"},
	{fault{err: errUnavailable}, 503, "unavailable", "Unavailable"},
	{fault{kind: coordinator.DeadlinePassed}, 504, "deadline-passed", "Deadline passed"},
	{fault{kind: coordinator.DiskFull}, 507, "disk-full", "Replicas out of disk"},
	{fault{kind: coordinator.Internal}, 500, "internal", "Internal error"},
	{fault{err: ErrDeadline}, 504, "deadline-passed", "Deadline passed"},
	{fault{err: context.DeadlineExceeded}, 504, "deadline-passed", "Deadline passed"},
	{fault{err: ErrCanceled}, statusClientClosedRequest, "canceled", "Canceled"},
	{fault{err: context.Canceled}, statusClientClosedRequest, "canceled", "Canceled"},
}

type grpcRow struct {
	fault
	code   codes.Code
	reason string
}

// grpcTable maps errors to gRPC; what is in no row is Internal.
var grpcTable = []grpcRow{
	{fault{err: ErrBadKey}, codes.InvalidArgument, "BAD_KEY"},
	{fault{err: ErrBadParameter}, codes.InvalidArgument, "BAD_PARAMETER"},
	{fault{err: causal.ErrToken}, codes.InvalidArgument, "BAD_CONTEXT"},
	{fault{err: ErrBadRequestID}, codes.InvalidArgument, "BAD_REQUEST_ID"},
	{fault{err: ErrBadContentType}, codes.InvalidArgument, "BAD_CONTENT_TYPE"},
	{fault{err: ErrBadRequest}, codes.InvalidArgument, "BAD_REQUEST"},
	{fault{err: ErrBodyCutShort}, codes.InvalidArgument, "BODY_CUT_SHORT"},
	{fault{err: ErrTooManyItems}, codes.InvalidArgument, "TOO_MANY_ITEMS"},
	{fault{kind: coordinator.BadQuorum}, codes.InvalidArgument, "BAD_QUORUM"},
	{fault{err: access.ErrUnauthenticated}, codes.Unauthenticated, "UNAUTHENTICATED"},
	{fault{err: access.ErrDenied}, codes.PermissionDenied, "DENIED"},
	{fault{err: ErrNoPath}, codes.NotFound, "NO_SUCH_PATH"},
	{fault{err: ErrNoValue}, codes.NotFound, "NO_VALUE"},
	{fault{err: ErrNoSibling}, codes.NotFound, "NO_SUCH_SIBLING"},
	{fault{err: ErrNoNode}, codes.NotFound, "NO_SUCH_NODE"},
	{fault{err: errNotFoundGRPC}, codes.NotFound, "NOT_FOUND"},
	{fault{err: ErrMethod}, codes.Unimplemented, "METHOD_NOT_ALLOWED"},
	{fault{err: ErrChangeRefused}, codes.FailedPrecondition, "CHANGE_REFUSED"},
	{fault{kind: coordinator.TooManySiblings}, codes.FailedPrecondition, "TOO_MANY_SIBLINGS"},
	{fault{err: causal.ErrClockTooLarge}, codes.FailedPrecondition, "CLOCK_TOO_LARGE"},
	{fault{kind: coordinator.TooLarge}, codes.FailedPrecondition, "RECORD_TOO_LARGE"},
	{fault{kind: coordinator.StaleContext}, codes.FailedPrecondition, "STALE_CONTEXT"},
	{fault{err: errPreconditionFailed}, codes.FailedPrecondition, "FAILED_PRECONDITION"},
	{fault{err: ErrValueTooLarge}, codes.InvalidArgument, "VALUE_TOO_LARGE"},
	{fault{err: ErrBatchTooLarge}, codes.InvalidArgument, "BATCH_TOO_LARGE"},
	{fault{err: ErrURITooLong}, codes.InvalidArgument, "URI_TOO_LONG"},
	{fault{err: ErrEncoding}, codes.InvalidArgument, "UNSUPPORTED_ENCODING"},
	{fault{err: limit.ErrExceeded}, codes.ResourceExhausted, "RATE_LIMITED"},
	{fault{err: ErrOverloaded}, codes.ResourceExhausted, "OVERLOADED"},
	{fault{kind: coordinator.Overloaded}, codes.ResourceExhausted, "OVERLOADED"},
	{fault{err: ErrConditionalWrite}, codes.Unimplemented, "CONDITIONAL_WRITE_UNSUPPORTED"},
	{fault{err: ErrNotImplemented}, codes.Unimplemented, "NOT_IMPLEMENTED"},
	{fault{err: ErrNoLayout}, codes.Unavailable, "NO_LAYOUT"},
	{fault{err: ErrShuttingDown}, codes.Unavailable, "SHUTTING_DOWN"},
	{fault{kind: coordinator.NoLayout}, codes.Unavailable, "NO_LAYOUT"},
	{fault{kind: coordinator.QuorumImpossible}, codes.Unavailable, "QUORUM_IMPOSSIBLE"},
	{fault{kind: coordinator.StaleRead}, codes.Unavailable, "STALE_READ"},
	{fault{err: errUnavailable}, codes.Unavailable, "UNAVAILABLE"},
	{fault{kind: coordinator.DeadlinePassed}, codes.DeadlineExceeded, "DEADLINE_PASSED"},
	{fault{kind: coordinator.DiskFull}, codes.ResourceExhausted, "DISK_FULL"},
	{fault{kind: coordinator.Internal}, codes.Internal, "INTERNAL"},
	{fault{err: ErrDeadline}, codes.DeadlineExceeded, "DEADLINE_PASSED"},
	{fault{err: context.DeadlineExceeded}, codes.DeadlineExceeded, "DEADLINE_PASSED"},
	{fault{err: ErrCanceled}, codes.Canceled, "CANCELED"},
	{fault{err: context.Canceled}, codes.Canceled, "CANCELED"},
}

// ErrorDomain is the domain of the ErrorInfo in gRPC details.
const ErrorDomain = "dotring"

// GRPC returns err, which is not nil, as a gRPC status with details: an ErrorInfo whose reason is constant for the kind
// of failure, the whole Problem as HTTP would show it, and a RetryInfo where trying again makes sense.
func GRPC(err error, write bool, requestID string) *status.Status {
	p := Of(err, write, requestID)
	code, reason := codes.Internal, "INTERNAL"
	for i := range grpcTable {
		if grpcTable[i].match(err) {
			code, reason = grpcTable[i].code, grpcTable[i].reason
			break
		}
	}
	message := p.Detail
	if message == "" {
		message = p.Title
	}
	info := &errdetails.ErrorInfo{Reason: reason, Domain: ErrorDomain,
		Metadata: map[string]string{"type": p.Type, "request_id": requestID}}
	if p.Outcome != "" {
		info.Metadata["outcome"] = p.Outcome
	}
	details := []protoadapt.MessageV1{info, protoadapt.MessageV1Of(p.Proto())}
	if s := p.RetryAfter(); s > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(s) * time.Second)})
	}
	plain := status.New(code, message)
	full, err := plain.WithDetails(details...)
	if err != nil {
		return plain
	}
	return full
}

// foreignCodes maps the statuses that gRPC libraries make by themselves (a body that is no JSON, a stream that ended).
var foreignCodes = map[codes.Code]error{
	codes.InvalidArgument:    ErrBadRequest,
	codes.OutOfRange:         ErrBadRequest,
	codes.Unauthenticated:    access.ErrUnauthenticated,
	codes.PermissionDenied:   access.ErrDenied,
	codes.NotFound:           errNotFoundGRPC,
	codes.ResourceExhausted:  ErrOverloaded,
	codes.FailedPrecondition: errPreconditionFailed,
	codes.Unimplemented:      ErrNotImplemented,
	codes.Unavailable:        errUnavailable,
	codes.DeadlineExceeded:   ErrDeadline,
	codes.Canceled:           ErrCanceled,
}

// foreign is an error of a library, told apart by its gRPC code.
type foreign struct {
	error
	is error
}

func (f foreign) Unwrap() []error { return []error{f.is, f.error} }

// FromStatus gives an error that carries a gRPC status the meaning that the tables know. Others are returned as they are.
func FromStatus(err error) error {
	s, ok := status.FromError(err)
	if !ok || s == nil {
		return err
	}
	is, ok := foreignCodes[s.Code()]
	if !ok {
		return err
	}
	return foreign{error: errors.New(s.Message()), is: is}
}
