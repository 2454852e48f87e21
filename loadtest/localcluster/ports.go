package localcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Reserved ports lie below those that the system gives to outgoing connections, which could take one before a program
// listens on it.
const (
	lowestPort   = 12_000
	blockSize    = 128
	blocks       = 120
	reserveTries = 4 * blocks
)

// Ports is a block of loopback ports that no other Ports holds, in this process or in another on this machine: it keeps
// a listener on the block's first port, which the system gives to one process alone. Not safe for concurrent use.
type Ports struct {
	lock net.Listener
	next int
	end  int
}

// ReservePorts takes a block that is free; the caller owns it until Release.
func ReservePorts() (*Ports, error) {
	var last error
	for range reserveTries {
		first := lowestPort + blockSize*rand.IntN(blocks)
		lock, err := net.Listen("tcp", loopback(first))
		if err == nil {
			return &Ports{lock: lock, next: first + 1, end: first + blockSize}, nil
		}
		last = err
	}
	return nil, fmt.Errorf("reserve ports: %w", last)
}

// Next returns an address of the block that was not given before and that neither TCP nor UDP holds, since gossip needs
// both.
func (p *Ports) Next() (string, error) {
	var last error
	for p.next < p.end {
		addr := loopback(p.next)
		p.next++
		l, err := net.Listen("tcp", addr)
		if err != nil {
			last = err
			continue
		}
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			last = errors.Join(err, l.Close())
			continue
		}
		if err := errors.Join(u.Close(), l.Close()); err != nil {
			return "", fmt.Errorf("reserve ports: %w", err)
		}
		return addr, nil
	}
	return "", fmt.Errorf("reserve ports: all %d of the block are given: %w", blockSize, last)
}

// Release lets others take the block.
func (p *Ports) Release() error {
	if err := p.lock.Close(); err != nil {
		return fmt.Errorf("release ports: %w", err)
	}
	return nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
