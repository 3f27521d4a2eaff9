package drivers

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
)

// Hosts are names and their addresses, as in a hosts file. A name may have several:
// clients try the next when one does not answer.
type Hosts map[string][]string

// ReadHosts reads a hosts file.
func ReadHosts(path string) (Hosts, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	hosts := make(Hosts)
	for line := range strings.Lines(string(raw)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) >= 2 {
			for _, name := range f[1:] {
				hosts[name] = append(hosts[name], f[0])
			}
		}
	}
	return hosts, nil
}

// dial connects to the first address of a host that answers.
func (h Hosts) dial(ctx context.Context, d *net.Dialer, network, host, port string) (net.Conn, error) {
	addresses := h[host]
	if len(addresses) == 0 {
		addresses = []string{host}
	}
	var errs []error
	for _, a := range addresses {
		conn, err := d.DialContext(ctx, network, net.JoinHostPort(a, port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
