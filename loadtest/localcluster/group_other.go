//go:build !linux

package localcluster

import "syscall"

// ownGroup keeps a terminal's Ctrl-C from reaching the process, since this one stops it in order.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
