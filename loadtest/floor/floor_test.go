package floor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	storagev1 "github.com/dotring/dotring/proto/gen/storage/v1"

	"github.com/dotring/dotring/loadtest/report"
)

func TestHandlerAnswersAsAGatewayDoes(t *testing.T) {
	srv := httptest.NewServer(handler(1000))
	defer srv.Close()
	do := func(method string, body io.Reader) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+"/v1/kv/a%2Fb", body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	res, body := do(http.MethodGet, nil)
	if res.StatusCode != 200 || len(body) != 1000 || res.Header.Get("Kv-Context") == "" || res.Header.Get("Etag") == "" {
		t.Errorf("get: %s, %d bytes, %v", res.Status, len(body), res.Header)
	}
	res, body = do(http.MethodPut, strings.NewReader(strings.Repeat("v", 1000)))
	if res.StatusCode != 200 || !strings.Contains(body, `"siblings":1`) || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("put: %s %s %v", res.Status, body, res.Header)
	}
}

// serveFrames answers every shape with as many bytes as it says, and the load counts what was answered.
func TestEcho(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- serveFrames(l, 1000, ctx.Done()) }()
	for _, s := range shapes(1000) {
		n, err := echoLoad(t.Context(), l.Addr().String(), s, 7, 3, time.Minute, 50)
		if err != nil || n < 50 || n > 57 {
			t.Errorf("%s: %d answers, %v", s.name, n, err)
		}
	}
	one, err := openLane(ctx, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shapes(1000) {
		if err := one.stream.Send(&storagev1.Frame{Requests: []*storagev1.Request{{Id: 9, Op: s.op}}}); err != nil {
			t.Fatal(err)
		}
		f, err := one.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		r := f.GetResponses()
		if len(r) != s.answers || len(r[0].GetRecord())+len(r[0].GetDigest()) != s.answer || r[0].GetId() != 9 {
			t.Errorf("%s: %d answers, the first with %d and %d bytes", s.name, len(r), len(r[0].GetRecord()), len(r[0].GetDigest()))
		}
	}
	if err := one.conn.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the server ended: %v", err)
	}
	if n, err := echoLoad(t.Context(), l.Addr().String(), shapes(10)[0], 2, 1, time.Minute, 0); err == nil {
		t.Errorf("%d answers from a server that has ended", n)
	}
}

func TestServe(t *testing.T) {
	if err := Serve(t.Context(), "nothing", "127.0.0.1:0", 1); err == nil {
		t.Error("served nothing")
	}
	for _, part := range []string{PartHTTP, PartFrames} {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Serve(ctx, part, "127.0.0.1:0", 10) }()
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", part, err)
		}
	}
}

func TestDisk(t *testing.T) {
	d, err := openDisk(t.Context(), t.TempDir(), 300, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := d.get(); err != nil {
			t.Fatal(err)
		}
	}
	for _, sync := range []bool{true, false} {
		if err := d.write(5, sync); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := d.db.Get(d.keyOf(299), nil); err != nil || len(v) != 1000+recordOverhead {
		t.Errorf("a record of %d bytes: %v", len(v), err)
	}
	if _, err := d.db.Get(d.keyOf(300), nil); err == nil {
		t.Error("more records than asked for")
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// What an operation needs is the sum that the notes tell, with the share of a batch as large as the cluster's.
func TestNeeds(t *testing.T) {
	m := &meter{out: &report.Floor{}, items: 9.6}
	costs := map[string]float64{"http put": 20, "http get": 19, "frame mint": 13, "frame apply": 12, "frame read": 11, "frame digest": 10,
		"leveldb get": 1.5, "leveldb synced 1/1": 90, "leveldb synced 1/10": 21, "leveldb unsynced 1/10": 7}
	for name, us := range costs {
		if err := m.add(name, "", time.Duration(us*1e6), 1000, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	m.needs(report.Operation{Name: "put", Cluster: 2 * 124.5}, report.Operation{Name: "get", Cluster: 43})
	put, get := m.out.Operations[0], m.out.Operations[1]
	if math.Abs(put.Sum()-(20+13+2*12+3*1.5+3*21)) > 1e-6 || math.Abs(put.Ratio()-2) > 1e-6 {
		t.Errorf("put: %+v, sum %v, ratio %v", put.Needs, put.Sum(), put.Ratio())
	}
	if math.Abs(get.Sum()-(19+11+10+2*1.5)) > 1e-6 || math.Abs(get.Ratio()-1) > 1e-6 {
		t.Errorf("get: %+v, sum %v, ratio %v", get.Needs, get.Sum(), get.Ratio())
	}
	if err := m.add("nothing", "", time.Second, 0, time.Second); err == nil {
		t.Error("a part that did nothing has a cost")
	}
}

func TestScrape(t *testing.T) {
	text := "# HELP dotring_kv_commit_items x\ndotring_kv_commit_items_bucket{le=\"1\"} 7\ndotring_kv_commit_items_sum 1.5e+03\ndotring_kv_commit_items_count 120\nother_sum 9\n"
	got, err := scrape(strings.NewReader(text), commitItems)
	if err != nil || got != (tally{1500, 120}) {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "dotring_kv_commit_items_sum 1\n", "dotring_kv_commit_items_sum x\ndotring_kv_commit_items_count 1\n"} {
		if got, err := scrape(strings.NewReader(bad), commitItems); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestRepeatStops(t *testing.T) {
	m := &meter{cfg: Config{Each: time.Hour, Say: func(string) {}}, out: &report.Floor{}}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := m.repeat(ctx, "x", "", 1, func() error {
		if n++; n == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 10 {
		t.Errorf("%d times, %v", n, err)
	}
	bad := fmt.Errorf("disk gone")
	if err := m.repeat(t.Context(), "x", "", 1, func() error { return bad }); !errors.Is(err, bad) {
		t.Errorf("%v", err)
	}
}
