package localcluster

import "path/filepath"

// NewProcess prepares any other program, to be started, stopped and kept from outliving this one as the cluster's own
// are. Its log and what else it keeps lie in dir.
func NewProcess(kind, name, program, dir string, args ...string) *Process {
	return &Process{Kind: kind, Name: name, program: program, dir: filepath.Clean(dir), args: args}
}

// PID is the process id of the latest start, 0 before the first.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}
