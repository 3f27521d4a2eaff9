// Package ports hands out TCP ports on loopback that stay free until they are used.
//
// A broker must know its port before it starts and comes back on the same one
// after a kill, so ":0" is no way to choose it. A port of this package lies
// outside the range from which the kernel takes the near ends of outgoing
// connections, and is held by a file lock against every other test process of
// this user for as long as its holder lives.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"tollgate.internal/e2e/internal/cache"
)

// A Lease is a number of ports that nobody else takes before it is released.
type Lease struct {
	Ports []int
	locks []*os.File
}

// Reserve leases n ports.
func Reserve(n int) (*Lease, error) {
	root, err := cache.Root()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "ports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	low, high := span()
	lease := &Lease{}
	start := rand.IntN(high - low)
	for i := range high - low {
		if len(lease.Ports) == n {
			return lease, nil
		}
		port := low + (start+i)%(high-low)
		lock, err := try(dir, port)
		if err != nil {
			lease.Release()
			return nil, err
		}
		if lock != nil {
			lease.Ports = append(lease.Ports, port)
			lease.locks = append(lease.locks, lock)
		}
	}
	lease.Release()
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, low, high)
}

// Block leases n ports in a row.
func Block(n int) (*Lease, error) {
	root, err := cache.Root()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "ports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	low, high := span()
	lease := &Lease{}
	start := rand.IntN(high - low)
	for i := range high - low {
		port := low + (start+i)%(high-low)
		if last := len(lease.Ports); last > 0 && lease.Ports[last-1] != port-1 {
			lease.Release() // the range wrapped around
			*lease = Lease{}
		}
		lock, err := try(dir, port)
		if err != nil {
			lease.Release()
			return nil, err
		}
		if lock == nil {
			lease.Release()
			*lease = Lease{}
			continue
		}
		lease.Ports = append(lease.Ports, port)
		lease.locks = append(lease.locks, lock)
		if len(lease.Ports) == n {
			return lease, nil
		}
	}
	lease.Release()
	return nil, fmt.Errorf("no %d free ports in a row between %d and %d", n, low, high)
}

// Release gives the ports back.
func (l *Lease) Release() {
	for _, f := range l.locks {
		f.Close()
	}
	l.Ports, l.locks = nil, nil
}

// try returns nil without an error when the port is taken.
func try(dir string, port int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock port %d: %w", port, err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		f.Close()
		return nil, nil // somebody who knows nothing of the locks listens there
	}
	ln.Close()
	return f, nil
}

// span is where to look: below the kernel's range for outgoing connections, or
// above it on a machine that was set up the other way round.
func span() (low, high int) {
	low, high = 32768, 60999 // the kernel's default
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(b), &low, &high)
	}
	const first = 15000 // below it are too many well-known services
	if low-first >= 2000 {
		return first, low
	}
	return min(high+1, 64000), 65536
}
