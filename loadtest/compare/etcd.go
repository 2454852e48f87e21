package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// ErrNoEtcd means that etcd is not installed.
var ErrNoEtcd = errors.New("etcd is not installed: on Debian and Ubuntu `apt-get install etcd-server` brings it, " +
	"elsewhere https://github.com/etcd-io/etcd/releases; --etcd names the program where it is not on the PATH")

const (
	etcdMembers = 3
	// etcdQuota is the size that a member's database may have, in bytes. The default, 2 GiB, would fill within minutes,
	// as etcd keeps every version of a key.
	etcdQuota = 8 << 30
)

// etcd is a cluster of three local members, as etcd's own defaults have them, but for the quota and the log level.
type etcd struct {
	members []*localcluster.Process
	client  *http.Client
	ports   *localcluster.Ports
}

// newEtcd prepares the members below dir, which must be empty: a member that finds data joins the cluster it was in.
func newEtcd(program, dir string) (*etcd, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoEtcd, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	ports, err := localcluster.ReservePorts()
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	clients, peers := make([]string, etcdMembers), make([]string, etcdMembers)
	var initial []string
	for i := range etcdMembers {
		for _, addrs := range [][]string{clients, peers} {
			if addrs[i], err = ports.Next(); err != nil {
				return nil, errors.Join(err, ports.Release())
			}
		}
		initial = append(initial, fmt.Sprintf("etcd%d=http://%s", i+1, peers[i]))
	}
	e := &etcd{ports: ports, client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{}}}
	for i := range etcdMembers {
		name := fmt.Sprintf("etcd%d", i+1)
		p := localcluster.NewProcess("etcd member", name, path, filepath.Join(dir, name),
			"--name", name, "--data-dir", filepath.Join(dir, name, "data"),
			"--listen-client-urls", "http://"+clients[i], "--advertise-client-urls", "http://"+clients[i],
			"--listen-peer-urls", "http://"+peers[i], "--initial-advertise-peer-urls", "http://"+peers[i],
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new", "--initial-cluster-token", filepath.Base(dir),
			"--quota-backend-bytes", fmt.Sprint(etcdQuota), "--logger", "zap", "--log-level", "error")
		p.HTTP = clients[i]
		e.members = append(e.members, p)
	}
	return e, nil
}

// version is what the program says of itself.
func etcdVersion(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "etcd"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(strings.Replace(line, "etcd Version:", "etcd", 1))
}

func (e *etcd) start(ctx context.Context) error {
	for _, m := range e.members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := e.leader(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("etcd does not become ready: %w", errors.Join(err, context.Cause(ctx)))
		}
		for _, m := range e.members {
			if !m.Running() {
				return fmt.Errorf("%s has ended (%w): %s", m.Name, m.Err(), m.LogTail(5))
			}
		}
	}
}

// leader returns the client address of the member that leads, once all members agree on it.
func (e *etcd) leader(ctx context.Context) (string, error) {
	leader, addr := "", ""
	for _, m := range e.members {
		var s struct {
			Header struct {
				Member string `json:"member_id"`
			} `json:"header"`
			Leader string `json:"leader"`
		}
		if err := e.post(ctx, "http://"+m.HTTP+"/v3/maintenance/status", &s); err != nil {
			return "", err
		}
		if s.Leader == "" || s.Leader == "0" || leader != "" && s.Leader != leader {
			return "", errors.New("etcd has no leader yet")
		}
		leader = s.Leader
		if s.Header.Member == s.Leader {
			addr = m.HTTP
		}
	}
	if addr == "" {
		return "", errors.New("etcd's leader is none of its members")
	}
	return addr, nil
}

func (e *etcd) post(ctx context.Context, url string, into any) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte("{}")))
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %.200s", url, resp.Status, body)
	}
	return json.Unmarshal(body, into)
}

func (e *etcd) addresses() []string {
	var out []string
	for _, m := range e.members {
		out = append(out, m.HTTP)
	}
	return out
}

func (e *etcd) stop(timeout time.Duration) error {
	defer e.client.CloseIdleConnections()
	return errors.Join(stopAll(e.members, timeout), e.ports.Release())
}

// stopAll ends processes, and kills those that have not ended within the timeout.
func stopAll(procs []*localcluster.Process, timeout time.Duration) error {
	var errs []error
	for _, p := range procs {
		errs = append(errs, p.Terminate())
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for _, p := range procs {
		select {
		case <-p.Exited():
		case <-deadline.C:
			deadline.Reset(0)
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(errs...)
}
