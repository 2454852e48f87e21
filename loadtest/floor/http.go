package floor

import (
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
)

// What a gateway's answers hold besides the value. The lengths are those of real ones.
var (
	contextToken = strings.Repeat("c", 108)
	putAnswer    = `{"context":"` + contextToken + `","siblings":1,"acks":2,"hinted":0}` + "\n"
	fixedHeaders = [][2]string{
		{"Kv-Context", contextToken}, {"Cache-Control", "private, no-cache"}, {"Content-Security-Policy", "sandbox"},
		{"X-Content-Type-Options", "nosniff"}, {"Vary", "Kv-Context, Accept, Authorization"}, {"Kv-Request-Id", strings.Repeat("R", 26)},
	}
	valueHeaders = [][2]string{
		{"Content-Type", "application/octet-stream"}, {"Etag", `"` + strings.Repeat("e", 22) + `"`}, {"Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"},
	}
)

// handler answers as a gateway would, with the same bodies, and does nothing for it.
func handler(valueSize int) http.Handler {
	value := []byte(strings.Repeat("v", valueSize))
	length := strconv.Itoa(valueSize)
	bodies := sync.Pool{New: func() any { b := make([]byte, max(valueSize, 512)); return &b }}
	r := chi.NewRouter()
	r.Get("/v1/kv/*", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		for _, f := range fixedHeaders {
			h.Set(f[0], f[1])
		}
		for _, f := range valueHeaders {
			h.Set(f[0], f[1])
		}
		h.Set("Content-Length", length)
		_, _ = w.Write(value) // a client that went away is no matter here
	})
	r.Put("/v1/kv/*", func(w http.ResponseWriter, req *http.Request) {
		b := bodies.Get().(*[]byte)
		_, err := io.ReadFull(req.Body, (*b)[:min(int64(len(*b)), max(0, req.ContentLength))])
		bodies.Put(b)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		h := w.Header()
		for _, f := range fixedHeaders {
			h.Set(f[0], f[1])
		}
		h.Set("Content-Type", "application/json")
		h.Set("Content-Length", strconv.Itoa(len(putAnswer)))
		_, _ = io.WriteString(w, putAnswer)
	})
	return r
}

// slack is memory that a gateway keeps reachable and never touches, so that garbage is collected as seldom here as there.
const slack = 64 << 20

// serveHTTP serves the handler until done is closed, with the settings of a gateway: each timeout of a server is a call of
// the poller for every request.
func serveHTTP(l net.Listener, valueSize int, done <-chan struct{}) error {
	defer runtime.KeepAlive(make([]byte, slack))
	srv := &http.Server{Handler: handler(valueSize), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 120 * time.Second,
		WriteTimeout: 90 * time.Second, MaxHeaderBytes: 64 << 10, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() {
		<-done
		_ = srv.Close() // closes the listener; what is in flight is of no use
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
