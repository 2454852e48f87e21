package problem

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dotring/dotring/gateway/coordinator"
	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
	"github.com/dotring/dotring/ringsvc/causal"
)

// TestTablesHoldTheSameFaults keeps the two tables in step.
func TestTablesHoldTheSameFaults(t *testing.T) {
	if len(httpTable) != len(grpcTable) {
		t.Fatalf("%d rows for HTTP, %d for gRPC", len(httpTable), len(grpcTable))
	}
	shape := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	meaning := map[string]string{}
	for i, h := range httpTable {
		g := grpcTable[i]
		if h.fault != g.fault {
			t.Errorf("row %d: HTTP has %v, gRPC %v", i, h.fault, g.fault)
		}
		if !shape.MatchString(h.slug) || h.title == "" || h.status < 400 || g.reason == "" || g.code == codes.OK {
			t.Errorf("row %d: %+v %+v", i, h, g)
		}
		m := fmt.Sprint(h.title, h.status, g.code, g.reason)
		if before, ok := meaning[h.slug]; ok && before != m {
			t.Errorf("%s means %q and %q", h.slug, before, m)
		}
		meaning[h.slug] = m
	}
	for k := coordinator.Internal; k <= coordinator.DiskFull; k++ {
		err := &coordinator.Error{Kind: k}
		if p := Of(err, false, ""); k != coordinator.Internal && p.Status == http.StatusInternalServerError {
			t.Errorf("kind %v is in no table", k)
		}
	}
}

// TestClassesAgree holds the class of each gRPC code against that of its HTTP status.
func TestClassesAgree(t *testing.T) {
	server := map[codes.Code]bool{codes.Internal: true, codes.Unavailable: true, codes.DeadlineExceeded: true}
	for i, h := range httpTable {
		code := grpcTable[i].code
		if h.status >= 500 && !server[code] && code != codes.Unimplemented && code != codes.ResourceExhausted ||
			h.status < 500 && server[code] {
			t.Errorf("%s is %d and %v", h.slug, h.status, code)
		}
	}
}

func TestWrappedErrorsAreFound(t *testing.T) {
	for _, c := range []struct {
		err     error
		status  int
		slug    string
		outcome string
		code    codes.Code
	}{
		{fmt.Errorf("a: %w", fmt.Errorf("%w: b", ErrBadKey)), 400, "bad-key", "not-applied", codes.InvalidArgument},
		{causal.ErrTokenOtherKey, 400, "bad-context", "not-applied", codes.InvalidArgument},
		{causal.ErrTokenDamaged, 400, "bad-context", "not-applied", codes.InvalidArgument},
		{errors.Join(errors.New("x"), context.DeadlineExceeded), 504, "deadline-passed", "not-applied", codes.DeadlineExceeded},
		{context.Canceled, 499, "canceled", "in-doubt", codes.Canceled},
		{errors.New("anything"), 500, "internal", "in-doubt", codes.Internal},
		{&coordinator.Error{Kind: coordinator.DeadlinePassed, Outcome: coordinator.InDoubt, Err: context.DeadlineExceeded}, 504, "deadline-passed", "in-doubt", codes.DeadlineExceeded},
		{&coordinator.Error{Kind: coordinator.QuorumImpossible, Outcome: coordinator.NotApplied}, 503, "quorum-impossible", "not-applied", codes.Unavailable},
		{&coordinator.Error{Kind: coordinator.TooLarge, Outcome: coordinator.NotApplied, Err: fmt.Errorf("x: %w", causal.ErrClockTooLarge)}, 409, "clock-too-large", "not-applied", codes.FailedPrecondition},
		{FromStatus(status.Error(codes.InvalidArgument, "no JSON")), 400, "bad-request", "not-applied", codes.InvalidArgument},
		{FromStatus(status.Error(codes.DataLoss, "x")), 500, "internal", "in-doubt", codes.Internal},
	} {
		p := Of(c.err, true, "id")
		if p.Status != c.status || p.Type != TypePrefix+c.slug || p.Outcome != c.outcome || p.RequestID != "id" {
			t.Errorf("%v: %+v", c.err, p)
		}
		if p := Of(c.err, false, "id"); p.Outcome != "" {
			t.Errorf("%v: outcome of a read %q", c.err, p.Outcome)
		}
		s := GRPC(c.err, true, "id")
		if s.Code() != c.code || len(s.Details()) < 2 {
			t.Errorf("%v: %v", c.err, s)
		}
		retry := false
		for _, d := range s.Details() {
			switch d := d.(type) {
			case *errdetails.RetryInfo:
				retry = true
			case *errdetails.ErrorInfo:
				if d.GetMetadata()["outcome"] != c.outcome || d.GetMetadata()["request_id"] != "id" {
					t.Errorf("%v: %v", c.err, d)
				}
			case *kvv1.Problem:
				if d.GetType() != p.Type || int(d.GetStatus()) != c.status {
					t.Errorf("%v: %v", c.err, d)
				}
			}
		}
		if retry != (p.RetryAfter() > 0) {
			t.Errorf("%v: retry %v", c.err, retry)
		}
	}
}

func TestForeignErrorIsReturnedAsItIs(t *testing.T) {
	err := errors.New("plain")
	if got := FromStatus(err); got != err {
		t.Errorf("%v", got)
	}
}
