package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/protobuf/encoding/protojson"

	kvv1 "github.com/dotring/dotring/proto/gen/kv/v1"
)

const (
	outcomeNotApplied = "not-applied"
	outcomeInDoubt    = "in-doubt"

	hintUnreachable = "Is the gateway running? Name another one with --gateway URL or in DOTRING_GATEWAY."
	hintNotAGateway = "Is this the HTTP port of a Dotring gateway? Name it with --gateway URL or in DOTRING_GATEWAY."
)

// failure is what went wrong with a request, as people are told it.
type failure struct {
	code    int
	title   string
	detail  string
	outcome string // of a write
	hint    string
	status  int           // HTTP; 0 without an answer
	problem *kvv1.Problem // as the gateway told it; nil where it did not
	raw     []byte        // the JSON of problem
	again   string        // the request id with which a write in doubt is repeated
}

func (f *failure) Error() string { return f.title }

// text returns the failure in plain words, one or more lines.
func (f *failure) text(p palette) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	status := ""
	if f.status != 0 {
		status = " (" + strconv.Itoa(f.status) + ")"
	}
	line("dotringctl: %s%s", p.paint(bad, escapeText(f.title)), status)
	if f.detail != "" && f.detail != f.title {
		line("  %s", strings.ReplaceAll(escapeLines(f.detail), "\n", "\n  "))
	}
	switch f.outcome {
	case outcomeNotApplied:
		again := ""
		if f.status == 0 || f.status == http.StatusTooManyRequests || f.status >= 500 {
			again = "; it can be tried again"
		}
		line("  Outcome: not applied. The write will never become visible%s.", again)
	case outcomeInDoubt:
		line("  Outcome: %s. The write may have been applied, or may be yet.", p.paint(doubtful, "in doubt"))
		if f.again != "" {
			line("  Repeat it with the same context, and --request-id %s within ten minutes: then it is not made twice.", escapeText(f.again))
		}
	}
	if f.problem != nil && len(f.problem.Replicas) > 0 {
		line("  What the replicas did:")
		var t table
		for _, r := range f.problem.Replicas {
			at := ""
			if r.AtUs > 0 {
				at = fmt.Sprintf("after %.1f ms", float64(r.AtUs)/1000)
			}
			t = append(t, []cell{text(r.Node), styled(r.Did, didStyle(r.Did)), text(at), text(r.Detail)})
		}
		b.WriteString(t.render(p, "    "))
	}
	if f.problem != nil && f.problem.RequestId != "" && f.again == "" {
		line("  Request id: %s", escapeText(f.problem.RequestId))
	}
	if f.hint != "" {
		line("%s", f.hint)
	}
	return b.String()
}

func didStyle(did string) style {
	switch did {
	case "failed", "refused":
		return bad
	case "pending", "skipped", "not asked":
		return doubtful
	default:
		return plainStyle
	}
}

// object returns the failure for scripts: what the gateway told, or as much of a problem as there is.
func (f *failure) object() any {
	type told struct {
		Error json.RawMessage `json:"error"`
	}
	type own struct {
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail"`
		Outcome   string `json:"outcome,omitempty"`
		RequestID string `json:"request_id,omitempty"`
	}
	if f.raw != nil {
		return told{f.raw}
	}
	return struct {
		Error own `json:"error"`
	}{own{f.title, f.status, f.detail, f.outcome, f.again}}
}

// failed returns the failure of a request without an answer. requestID is that of a write, empty for a read.
func failed(err error, requestID string) error {
	var ce *connError
	if !errors.As(err, &ce) {
		return &failure{code: ExitError, title: err.Error()}
	}
	f := &failure{code: ExitError, title: "cannot reach the gateway at " + ce.url, detail: reason(ce.err), hint: hintUnreachable}
	if ce.sent {
		f.title, f.hint = "the gateway at "+ce.url+" gave no whole answer", ""
	}
	if errors.Is(ce.err, context.Canceled) {
		f.title, f.detail, f.hint = "interrupted", "", ""
	}
	if requestID != "" {
		f.outcome = outcomeNotApplied
		if ce.sent {
			f.outcome, f.code, f.again = outcomeInDoubt, ExitInDoubt, requestID
		}
	}
	return f
}

// reason returns why a connection failed, without the addresses that repeat the URL.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// refused returns the failure of a request whose answer is no success. requestID is that of a write, empty for a read.
func refused(a answer, requestID string) *failure {
	f := &failure{code: ExitError, status: a.status}
	if media, _, err := mime.ParseMediaType(a.header.Get("Content-Type")); err == nil && media == "application/problem+json" {
		var p kvv1.Problem
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(a.body, &p); err == nil {
			f.problem, f.raw, f.title, f.detail, f.outcome = &p, a.body, p.Title, p.Detail, p.Outcome
		}
	}
	if f.problem == nil {
		f.title = strings.TrimSpace("unexpected answer: " + http.StatusText(a.status))
		f.detail, f.hint = excerpt(a), hintNotAGateway
	}
	if f.title == "" {
		f.title = "the request failed"
	}
	if requestID == "" {
		f.outcome = ""
		return f
	}
	if f.outcome == "" && (a.status >= 500 || a.status < 300) {
		// Something between here and the gateway answered, maybe after the gateway had taken the write.
		f.outcome = outcomeInDoubt
	}
	if f.outcome == outcomeInDoubt {
		f.code, f.again = ExitInDoubt, requestID
	}
	return f
}

// excerpt returns the beginning of an answer that is not what was expected.
func excerpt(a answer) string {
	if to := a.header.Get("Location"); to != "" {
		return "redirected to " + to
	}
	body, cut := forTerminal(a.body[:min(len(a.body), 200)])
	body, _, more := strings.Cut(strings.TrimSpace(body), "\n")
	if body != "" && (cut || more || len(a.body) > 200) {
		body += " …"
	}
	return body
}

// slug returns the last part of the problem's type; empty without a problem.
func (f *failure) slug() string {
	if f.problem == nil {
		return ""
	}
	return f.problem.Type[strings.LastIndexByte(f.problem.Type, '/')+1:]
}
