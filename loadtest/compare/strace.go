package compare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNoStrace means that strace is not installed.
var ErrNoStrace = errors.New("strace is not installed: on Debian and Ubuntu `apt-get install strace` brings it")

const (
	attachTimeout = 20 * time.Second
	detachTimeout = 20 * time.Second
)

// counter is an strace that counts the syncs of some processes.
type counter struct {
	cmd    *exec.Cmd
	file   string
	exited chan error
}

// startCounter attaches to the processes and returns once all of them are watched. The counter must be stopped.
func startCounter(ctx context.Context, file string, pids []int) (*counter, error) {
	path, err := exec.LookPath("strace")
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoStrace, err)
	}
	args := []string{"-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o", file}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	c := &counter{cmd: exec.CommandContext(ctx, path, args...), file: file, exited: make(chan error, 1)}
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGINT) }
	c.cmd.WaitDelay = detachTimeout
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("compare: start strace: %w", err)
	}
	attached := make(chan struct{})
	var said strings.Builder
	go func() {
		scan, seen := bufio.NewScanner(stderr), 0
		for scan.Scan() {
			if said.Len() < 4096 {
				said.WriteString(scan.Text() + "\n")
			}
			if strings.Contains(scan.Text(), "attached") {
				if seen++; seen == len(pids) {
					close(attached)
				}
			}
		}
		c.exited <- c.cmd.Wait()
	}()
	timer := time.NewTimer(attachTimeout)
	defer timer.Stop()
	select {
	case <-attached:
		return c, nil
	case err := <-c.exited:
		return nil, fmt.Errorf("compare: strace ended (%w): %s", err, said.String())
	case <-timer.C:
		_, err := c.stop()
		return nil, errors.Join(errors.New("compare: strace did not attach"), err)
	}
}

// stop detaches, and returns how many syncs there were.
func (c *counter) stop() (int64, error) {
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, fmt.Errorf("compare: stop strace: %w", err)
	}
	timer := time.NewTimer(detachTimeout)
	defer timer.Stop()
	select {
	case <-c.exited: // it ends with the signal it got, which is no error here
	case <-timer.C:
		return 0, errors.Join(errors.New("compare: strace did not end"), c.cmd.Process.Kill())
	}
	f, err := os.Open(c.file)
	if err != nil {
		return 0, fmt.Errorf("compare: %w", err)
	}
	n, err := parseStrace(f)
	return n, errors.Join(err, f.Close())
}

// parseStrace adds up the calls in the table that strace -c prints.
func parseStrace(r io.Reader) (int64, error) {
	scan, sum, inTable := bufio.NewScanner(r), int64(0), false
	for scan.Scan() {
		f := strings.Fields(scan.Text())
		if len(f) > 0 && strings.HasPrefix(f[0], "---") {
			inTable = !inTable // between the lines
			continue
		}
		if !inTable || len(f) < 5 {
			continue
		}
		n, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("compare: strace's line %q is not understood", scan.Text())
		}
		sum += n
	}
	if err := scan.Err(); err != nil {
		return 0, fmt.Errorf("compare: %w", err)
	}
	return sum, nil
}
