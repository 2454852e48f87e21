package localcluster

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from reaching the process, since this one stops it in order, and lets it die with
// this one.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
