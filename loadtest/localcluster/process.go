package localcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Process is one storage node or gateway of a local cluster. It may be started again after it ended. Safe for
// concurrent use.
type Process struct {
	// Name is "node1", "gateway1", ...; Kind is "storage node" or "gateway".
	Name, Kind string
	// Addresses, host:port; those that the kind does not have are empty.
	HTTP, GRPC, Gossip, Admin string

	prefix  []string // before the program, to start it in another place
	program string
	args    []string
	dir     string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	err    error
}

// Command is the command line that starts the process, for people.
func (p *Process) Command() string {
	return p.program + " " + strings.Join(p.args, " ")
}

// LogFile is where the process's output goes.
func (p *Process) LogFile() string { return filepath.Join(p.dir, "log") }

// DataDir is a storage node's data folder.
func (p *Process) DataDir() string { return filepath.Join(p.dir, "data") }

// SetProgram has the process run another program from the next Start on: another version of it, say.
func (p *Process) SetProgram(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.program = path
}

// SetArg replaces the value of a flag, or adds it, for the next start.
func (p *Process) SetArg(flag, value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 0; i+1 < len(p.args); i++ {
		if p.args[i] == flag {
			p.args[i+1] = value
			return
		}
	}
	p.args = append(p.args, flag, value)
}

func (p *Process) addrs() []string {
	var out []string
	for _, a := range []string{p.HTTP, p.GRPC, p.Gossip, p.Admin} {
		if a != "" {
			out = append(out, a)
		}
	}
	return out
}

// Start starts the process; its output is appended to its log file. Where the system can, the process dies with this
// one, so that nothing is left behind.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && !isClosed(p.exited) {
		return fmt.Errorf("%s runs already", p.Name)
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return fmt.Errorf("create folder of %s: %w", p.Name, err)
	}
	log, err := os.OpenFile(p.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.Name, err)
	}
	words := append(append(append([]string(nil), p.prefix...), p.program), p.args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.Name, err), log.Close())
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.err = cmd, exited, nil
	go func() {
		err := errors.Join(cmd.Wait(), log.Close())
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(exited)
	}()
	return nil
}

// Started reports whether the process was ever started.
func (p *Process) Started() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// Running reports whether the process has been started and has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && !isClosed(p.exited)
}

// Exited is closed when the process of the latest start has ended; for one that was never started it is closed.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return p.exited
}

// Err says how the process ended: nil for exit code 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Terminate asks the process to stop (SIGTERM). It does not wait. A process that does not run is no error.
func (p *Process) Terminate() error { return p.Signal(syscall.SIGTERM) }

// Kill ends the process at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() error {
	err := p.Signal(syscall.SIGKILL)
	<-p.Exited()
	return err
}

// Signal sends a signal. A process that does not run is no error.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || isClosed(p.exited) {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// LogTail returns the last lines of the process's log, for an error message; empty where there is none.
func (p *Process) LogTail(lines int) string {
	b, err := os.ReadFile(p.LogFile())
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
