package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestExitCodes(t *testing.T) {
	var out, logs buffer
	if code := run([]string{"--help"}, &out, &logs); code != 0 || !strings.Contains(out.String(), "--data-dir") {
		t.Errorf("help: exit code %d\n%s", code, out.String())
	}
	if code := run([]string{"--replicas", "x"}, &out, &logs); code != 2 || !strings.Contains(logs.String(), "replicas") || !strings.Contains(logs.String(), "data-dir") {
		t.Errorf("bad configuration: exit code %d\n%s", code, logs.String())
	}
	if code := run([]string{"--name", "n", "--data-dir", "/dev/null/x"}, &out, &logs); code != 1 || !strings.Contains(logs.String(), "node failed") {
		t.Errorf("bad data directory: exit code %d\n%s", code, logs.String())
	}
}

// SIGTERM ends the node in order, with exit code 0.
func TestSignal(t *testing.T) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 31_000+os.Getpid()%1000)) // below the ports of outgoing connections
	if err != nil {
		t.Fatal(err)
	}
	admin := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var out, logs buffer
	code := make(chan int, 1)
	go func() {
		code <- run([]string{"--name", "n", "--data-dir", t.TempDir(), "--grpc-addr", "127.0.0.1:0", "--gossip-addr", "127.0.0.1:0",
			"--admin-addr", admin, "--engine", "memory", "--memory-limit", "1GiB"}, &out, &logs)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for ready := false; !ready; {
		select {
		case <-tick.C:
			if resp, err := http.Get("http://" + admin + "/readyz"); err == nil {
				ready = resp.StatusCode == http.StatusOK
				if err := resp.Body.Close(); err != nil {
					t.Error(err)
				}
			}
		case c := <-code:
			t.Fatalf("ended with %d\n%s", c, logs.String())
		case <-deadline:
			t.Fatalf("not ready\n%s", logs.String())
		}
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-code:
		if c != 0 || !strings.Contains(logs.String(), "node stopped") {
			t.Errorf("exit code %d\n%s", c, logs.String())
		}
	case <-deadline:
		t.Fatalf("does not stop\n%s", logs.String())
	}
}
