package httpapi

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// statusCounters keeps one counter per status. A lookup in a vector hashes its labels; this one is an index.
type statusCounters struct {
	of       *prometheus.CounterVec
	children [maxStatus]atomic.Pointer[prometheus.Counter]
}

func (s *statusCounters) get(status int) prometheus.Counter {
	if c := s.children[status].Load(); c != nil {
		return *c
	}
	c := s.of.WithLabelValues(statusText(status))
	s.children[status].Store(&c)
	return c
}

// observe counts a finished exchange and logs it: at debug, what failed inside the cluster or was slow as a warning.
func (a *API) observe(x *exchange, r *http.Request) {
	status := x.status
	if status == 0 {
		status = http.StatusOK
	}
	now := a.cfg.Now()
	took := now.Sub(x.started)
	a.metrics.count(x.op, status)
	a.metrics.durations[x.op].Observe(took.Seconds())
	if x.bytesIn > 0 {
		a.metrics.bytesIn.Add(float64(x.bytesIn))
	}
	if x.bytesOut > 0 {
		a.metrics.bytesOut.Add(float64(x.bytesOut))
	}
	if s := x.course.Span; s != nil {
		s.Name("http " + x.op.String())
		s.Str("dotring.request_id", x.requestID)
		s.Str("http.request.method", r.Method)
		s.Str("url.path", a.path(r))
		s.Int("http.response.status_code", int64(status))
		if status >= 500 {
			s.Fail(http.StatusText(status))
		}
		s.End()
	}
	var line *zerolog.Event
	message := "slow request"
	if x.op != opHealth && x.op != opBackup { // a backup takes as long as it takes
		line = a.cfg.Slow.Line(took, now)
	}
	switch {
	case status >= 500 && x.op != opHealth:
		message = "request failed"
		if line == nil {
			line = a.burst.Warn()
		}
	case line == nil:
		line, message = a.cfg.Logger.Debug(), "request"
	}
	if line == nil {
		return
	}
	line = a.cfg.Slow.Describe(line, &x.course, x.started, took)
	line.Str("request_id", x.requestID).Str("method", r.Method).Str("path", a.path(r)).Stringer("op", x.op).
		Int("status", status).Dur("took", took).Int64("bytes_in", x.bytesIn).Int64("bytes_out", x.bytesOut).
		Str("peer", r.RemoteAddr)
	if x.err != nil {
		line = line.AnErr("err", x.err)
	}
	line.Msg(message)
}

// path is that of a request, as logs and traces show it.
func (a *API) path(r *http.Request) string {
	return a.cfg.Slow.Path(r.URL.EscapedPath(), kvPrefix, inspectPrefix)
}
