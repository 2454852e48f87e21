package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dotring/dotring/loadtest/localcluster"
)

// network gives each process a network namespace of its own. A namespace's only way out is a TUN device whose other end
// this program holds, so that every packet passes through fabric, which loses, delays or cuts. That needs no firewall
// and no traffic shaping of the kernel. Host 0 is this program itself, in the namespace it was started in.
type network struct {
	*fabric
	names []string // of the namespaces; empty for host 0
	hosts []string // addresses
}

// newNetwork makes a network of this program and others more hosts. The error is ErrNoNetwork, with the reason, where
// the machine does not permit it. The caller closes it.
func newNetwork(others int, seed uint64) (*network, error) {
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoNetwork, err)
	}
	n := &network{}
	pid := os.Getpid()
	subnet := fmt.Sprintf("10.%d.%d", 64+pid/256%128, pid%256)
	var devices []device
	for i := range others + 1 {
		name, ns := fmt.Sprintf("dr%d-%d", pid, i), ""
		if i > 0 {
			ns = name
		}
		dev, err := n.host(name, ns, fmt.Sprintf("%s.%d", subnet, i+1))
		if dev != nil {
			devices = append(devices, dev)
		}
		if err != nil {
			for _, d := range devices {
				err = errors.Join(err, d.Close())
			}
			return nil, fmt.Errorf("%w: %w", ErrNoNetwork, errors.Join(err, n.remove()))
		}
	}
	n.fabric = newFabric(devices, func(p []byte) (int, bool) {
		// Of an IPv4 packet the destination is at 16; all are in one subnet of 256 addresses.
		if len(p) < 20 || p[0]>>4 != 4 || int(p[19]) < 1 || int(p[19]) > len(devices) {
			return 0, false
		}
		return int(p[19]) - 1, true
	}, seed)
	return n, nil
}

// host makes a TUN device, and moves it into a new namespace unless ns is empty.
func (n *network) host(name, ns, addr string) (*os.File, error) {
	dev, err := openTUN(name)
	if err != nil {
		return nil, err
	}
	in := []string(nil)
	if ns != "" {
		if err := ip("netns", "add", ns); err != nil {
			return dev, err
		}
		in = []string{"-n", ns}
	}
	n.names, n.hosts = append(n.names, ns), append(n.hosts, addr)
	if ns != "" {
		if err := errors.Join(ip("link", "set", name, "netns", ns), ip("-n", ns, "link", "set", "lo", "up")); err != nil {
			return dev, err
		}
	}
	return dev, errors.Join(
		ip(append(in, "addr", "add", addr+"/24", "dev", name)...),
		ip(append(in, "link", "set", name, "mtu", strconv.Itoa(maxPacket), "txqueuelen", "5000", "up")...))
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// place says how to run a process on host i.
func (n *network) place(i int) localcluster.Place {
	return localcluster.Place{Host: n.hosts[i], Prefix: []string{"ip", "netns", "exec", n.names[i]}}
}

// close ends the network and removes the namespaces. Processes in them should have ended.
func (n *network) close() error { return errors.Join(n.fabric.close(), n.remove()) }

func (n *network) remove() error {
	var errs []error
	for _, name := range n.names {
		if name != "" {
			errs = append(errs, ip("netns", "del", name))
		}
	}
	return errors.Join(errs...)
}

// sweepNamespaces removes the namespaces of runs that were killed: those named after processes that live no more.
func sweepNamespaces() error {
	found, err := filepath.Glob("/run/netns/dr*-*")
	if err != nil {
		return fmt.Errorf("look for namespaces: %w", err)
	}
	var errs []error
	for _, path := range found {
		name := filepath.Base(path)
		pid, err := strconv.Atoi(strings.TrimPrefix(name[:strings.IndexByte(name, '-')], "dr"))
		if err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			errs = append(errs, ip("netns", "del", name))
		}
	}
	return errors.Join(errs...)
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
