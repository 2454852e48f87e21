package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/dotring/dotring/loadtest/localcluster"
)

const deployments = "../../deployments"

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every metric that an alert or a panel names is exported by a running cluster, and every alert has a section in the
// runbook.
func TestAlertsAndPanelsNameWhatIsExported(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 1})
	cl := newClient(t, c.Gateways[0])
	for i := range 20 {
		key := fmt.Sprint("key-", i)
		cl.want(t, 200, "PUT", key, "", []byte("v"))
		cl.want(t, 200, "GET", key, "", nil)
	}
	exported := map[string]bool{"process_resident_memory_bytes": true, "up": true}
	for _, p := range c.All() {
		a, err := http.Get("http://" + p.Admin + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		_, err = b.WriteString(readAll(t, a))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(b.String(), -1) {
			exported[m[1]] = true
			if m[2] == "histogram" {
				exported[m[1]+"_bucket"], exported[m[1]+"_sum"], exported[m[1]+"_count"] = true, true, true
			}
		}
	}
	names := regexp.MustCompile(`\bdotring_[a-z_]+`)
	used := 0
	check := func(where, expr string) {
		for _, name := range names.FindAllString(expr, -1) {
			used++
			if !exported[name] {
				t.Errorf("%s: %s is not exported", where, name)
			}
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, filepath.Join(deployments, "prometheus/alerts.yaml"))), &rules); err != nil {
		t.Fatal(err)
	}
	runbook := readFile(t, filepath.Join(deployments, "RUNBOOK.md"))
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			check(r.Alert, r.Expr)
			if !strings.Contains(runbook, "### "+r.Alert+"\n") {
				t.Errorf("%s has no section in the runbook", r.Alert)
			}
		}
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(deployments, "grafana/dotring.json"))), &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	if used < 30 {
		t.Errorf("only %d metrics are named: are the files read?", used)
	}
	for _, args := range [][]string{{"promtool", "check", "rules", filepath.Join(deployments, "prometheus/alerts.yaml")}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("not checked by %s, which is not installed", args[0])
			continue
		}
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

func readAll(t *testing.T, r *http.Response) string {
	t.Helper()
	var b strings.Builder
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if err := r.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// balancer runs a balancer with the configuration that is shipped, at other addresses.
func balancer(t *testing.T, c *localcluster.Cluster, program, file string, args func(config string) []string) *client {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	ports, err := localcluster.ReservePorts()
	if err != nil {
		t.Fatal(err)
	}
	front, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := strings.NewReplacer("127.0.0.1:8000", front, "127.0.0.1:8080", c.Gateways[0].HTTP, "127.0.0.1:8081", c.Gateways[1].HTTP,
		"/tmp/dotring-nginx.pid", filepath.Join(dir, "pid")).Replace(readFile(t, filepath.Join(deployments, "balancer", file)))
	config := filepath.Join(dir, file)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := localcluster.NewProcess("balancer", program, path, dir, args(config)...)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Kill(), ports.Release()); err != nil {
			t.Error(err)
		}
	})
	cl := newClient(t, &localcluster.Process{HTTP: front})
	eventually(t, c, func() error {
		a, err := cl.raw("GET", "/readyz", "", nil)
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%v: %s", a, p.LogTail(5))
		}
		return err
	})
	return cl
}

// Behind a balancer every awkward key is the same key, a long context passes, and no request fails that is safe to repeat
// while a gateway is killed and started, and each is restarted in turn.
func TestBalancers(t *testing.T) {
	c := start(t, localcluster.Config{Nodes: 3, Gateways: 2, GatewayArgs: []string{"--drain-delay", "2s"}})
	direct := newClient(t, c.Gateways[0])
	for _, b := range []struct {
		program, file string
		args          func(string) []string
	}{
		{"haproxy", "haproxy.cfg", func(config string) []string { return []string{"-W", "-db", "-f", config} }},
		{"nginx", "nginx.conf", func(config string) []string { return []string{"-g", "daemon off;", "-c", config} }},
	} {
		t.Run(b.program, func(t *testing.T) {
			cl := balancer(t, c, b.program, b.file, b.args)
			for i, key := range []string{"a/b", "a%2Fb", "a%252Fb", "..", "a/../b", "a//b", "a+b", "a b", "ä", "\xff\xfe", "a?b", "a#b", ".", "/"} {
				value := []byte(fmt.Sprint(b.program, i))
				cl.want(t, 200, "PUT", key, "", value)
				if a := direct.want(t, 200, "GET", key, "", nil); string(a.body) != string(value) {
					t.Errorf("%q is %q behind the balancer and %q before it", key, value, a.body)
				}
				if a := cl.want(t, 200, "GET", key, "", nil); string(a.body) != string(value) {
					t.Errorf("%q is %q", key, a.body)
				}
			}
			long := strings.Repeat("A", 3072)
			if a, err := cl.do("GET", "k", "", nil, "Kv-Context", long); err != nil || a.status != 400 || !strings.Contains(string(a.body), "bad-context") {
				t.Errorf("a context of 3,072 characters: %v, %v", a, err)
			}
			rolling(t, c, cl, b.program)
		})
	}
}

// rolling kills a gateway and restarts each in turn, under load.
func rolling(t *testing.T, c *localcluster.Cluster, cl *client, name string) {
	t.Helper()
	var stop atomic.Bool
	var requests atomic.Int64
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() {
			for i := 0; !stop.Load(); i++ {
				method, body := "PUT", []byte("v")
				if i%2 == 1 {
					method, body = "GET", nil
				}
				id := fmt.Sprintf("%s-%d-%d", name, w, i)
				a, err := cl.do(method, url.PathEscape(fmt.Sprint("load-", w)), "", body, "Kv-Request-Id", id)
				if err != nil || a.status != 200 {
					t.Errorf("%s %s: %v, %v", method, id, a, err)
				}
				requests.Add(1)
			}
		})
	}
	pass := func(n int64) {
		t.Helper()
		from := requests.Load()
		eventually(t, c, func() error {
			if got := requests.Load() - from; got < n {
				return fmt.Errorf("%d requests", got)
			}
			return nil
		})
	}
	pass(200)
	for _, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGTERM} {
		g := c.Gateways[0]
		if how == syscall.SIGTERM && requests.Load()%2 == 0 {
			g = c.Gateways[1]
		}
		if err := g.Signal(how); err != nil {
			t.Fatal(err)
		}
		<-g.Exited()
		pass(100)
		if err := g.Start(); err != nil {
			t.Fatal(err)
		}
		waitReady(t, c, 3)
		pass(300)
	}
	stop.Store(true)
	load.Wait()
	t.Logf("%d requests through %s", requests.Load(), name)
}
