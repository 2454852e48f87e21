//go:build !linux

package chaos

import (
	"fmt"
	"runtime"

	"github.com/dotring/dotring/loadtest/localcluster"
)

type network struct{ *fabric }

func newNetwork(int, uint64) (*network, error) {
	return nil, fmt.Errorf("%w: they are a matter of Linux, this is %s", ErrNoNetwork, runtime.GOOS)
}

func (n *network) place(int) localcluster.Place { return localcluster.Place{} }

func (n *network) close() error { return n.fabric.close() }

func sweepNamespaces() error { return nil }
