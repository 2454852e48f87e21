package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/dotring/dotring/gateway/backup"
	"github.com/dotring/dotring/gateway/coordinator"
	"github.com/dotring/dotring/gateway/internal/httpapi"
)

// records reads a whole file of a backup.
func records(b []byte) (n int, err error) {
	r, err := backup.NewReader(bytes.NewReader(b))
	for err == nil {
		if _, _, err = r.Next(); err == nil {
			n++
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (d *driver) snapshots(m string) {
	d.t.Helper()
	target := "/v1/cluster:snapshot?node=a&part="
	all := d.good(200, call{m, target + "records", header("Kv-Request-Id", "snapshot-1"), ""})
	if n, err := records(all.body); m == "GET" && (err != nil || n < 5) {
		d.t.Errorf("%d records, %v", n, err)
	}
	d.good(200, call{m, target + "hints", nil, ""})
	d.good(200, call{m, "/v1/cluster%3Asnapshot?part=hints&node=a", nil, ""})
	d.good(200, call{m, "/v1/cluster%3asnapshot?part=hints&node=a", nil, ""})
	for _, query := range []string{"", "?node=a", "?part=hints", "?node=a&part=all", "?node=a&node=b&part=hints", "?node=a&part=hints&r=1"} {
		d.bad(400, call{m, "/v1/cluster:snapshot" + query, nil, ""})
	}
	d.bad(414, call{m, tooLong("/v1/cluster:snapshot"), nil, ""})
	d.access(call{m, target + "records", nil, ""})
	d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{m, target + "records", nil, ""})
	for status, err := range map[int]error{500: errors.New("some fault"), 429: fault(coordinator.Overloaded, nil)} {
		d.failing(err, func() { d.good(status, call{m, target + "records", nil, ""}) })
	}
	for _, kind := range []coordinator.Kind{coordinator.NoLayout, coordinator.QuorumImpossible} {
		d.failing(fault(kind, nil), func() { d.good(503, call{m, target + "records", nil, ""}) })
	}
}

func (d *driver) restore() {
	d.t.Helper()
	target := "/v1/cluster:restore"
	piece := string(d.h.do(call{"GET", "/v1/cluster:snapshot?node=a&part=records", nil, ""}).body)
	binary := header("Content-Type", "application/vnd.dotring.backup", "Kv-Request-Id", "restore-1")
	again := d.on()
	if n := again.good(200, call{"POST", target, binary, piece}); !strings.Contains(string(n.body), `{"restored":"`) {
		d.t.Errorf("%s", n.body)
	}
	// What was restored is what was there.
	if was, is := d.h.get("both"), again.h.get("both"); is.StatusCode != 300 || !bytes.Equal(was.body[bytes.Index(was.body, []byte("siblings")):], is.body[bytes.Index(is.body, []byte("siblings")):]) {
		d.t.Errorf("both was %s, and is %s", was.body, is.body)
	}
	d.good(200, call{"POST", "/v1/cluster%3Arestore", binary, piece})
	d.good(200, call{"POST", "/v1/cluster%3arestore", binary, piece})
	d.access(call{"POST", target, header("Content-Type", "application/vnd.dotring.backup"), piece})
	d.bad(400, call{"POST", target + "?dry_run=true", nil, piece})
	d.bad(400, call{"POST", target, header("Kv-Request-Id", ""), piece})
	none := d.on()
	for _, damaged := range []string{"", piece[:len(piece)-1], piece + "x", strings.Replace(piece, "hello", "hallo", 1)} {
		none.bad(400, call{"POST", target, binary, damaged})
	}
	if a := none.h.get("text"); a.StatusCode != 404 {
		d.t.Errorf("a damaged piece restored %s", a.body)
	}
	d.raw(400, call{"POST", target, nil, ""}, "POST "+target+" HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n{", true)
	d.bad(413, call{"POST", target, binary, strings.Repeat(" ", 8<<20+1)})
	d.bad(414, call{"POST", tooLong(target), nil, piece})
	d.bad(415, call{"POST", target, header("Content-Encoding", "gzip"), piece})
	d.on(func(c *httpapi.Config) { c.Admission = full() }).good(429, call{"POST", target, binary, piece})
	d.failing(errors.New("some fault"), func() { d.good(500, call{"POST", target, binary, piece}) })
	for _, kind := range []coordinator.Kind{coordinator.NoLayout, coordinator.QuorumImpossible} {
		d.failing(fault(kind, nil), func() { d.good(503, call{"POST", target, binary, piece}) })
	}
	late := d.on(func(c *httpapi.Config) { c.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
	late.raw(504, call{"POST", target, nil, ""}, "POST "+target+" HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n", false)
}

// A node that breaks off leaves an answer that nobody takes for whole.
func TestSnapshotBrokenOff(t *testing.T) {
	h := newHarness(t, func(c *httpapi.Config) { c.Backups = broken{} })
	res, err := h.server.Client().Get(h.server.URL + "/v1/cluster:snapshot?node=a&part=records")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err == nil || res.Body.Close() != nil {
		t.Errorf("the answer ends as a whole one: %d bytes", len(b))
	}
	if _, err := records(b); !errors.Is(err, backup.ErrDamaged) {
		t.Error(err)
	}
}

// broken begins a snapshot and does not end it.
type broken struct{ httpapi.Backups }

func (broken) Snapshot(context.Context, string, string) (backup.Head, func(func(key, rec []byte) error) error, error) {
	return backup.Head{}, func(func(key, rec []byte) error) error { return errors.New("the node is gone") }, nil
}
