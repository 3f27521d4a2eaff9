// Package dev runs the whole product on one machine: embedded Kafka clusters, the
// control plane with its API, an embedded Redis and a database in a file, one proxy or
// several, a throw-away CA and seeded tenants. Everything that outlives a run is in its
// state directory, and a run on the same directory goes on with the same data.
//
// The file dev.json in the state directory exists while, and only while,
// everything serves.
package dev

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Config is what the flags of tollgate dev say.
type Config struct {
	State     string     // directory
	Upstreams []Upstream // real clusters; none: embedded ones. The first is home
	Resources string     // directory; empty: seeded tenants
	Listen    string     // address of the SNI listener
	Domain    string
	PortBase  int
	Nodes     int       // processes of their own; 0: one, in this process
	Redis     string    // URL; empty: an embedded one
	Database  string    // postgres://… or sqlite:PATH; empty: one in the state directory
	Out       io.Writer // for people: where things are, once they serve
	Err       io.Writer // for what nodes of their own log
	Log       *slog.Logger
}

// Upstream is a physical cluster without TLS or authentication.
type Upstream struct {
	Name      string
	Bootstrap []string
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// ParseUpstream reads NAME=HOST:PORT[,HOST:PORT].
func ParseUpstream(s string) (Upstream, error) {
	name, addresses, found := strings.Cut(s, "=")
	if !found || !clusterName.MatchString(name) {
		return Upstream{}, fmt.Errorf("%q does not begin with NAME=, a name of a-z, 0-9 and -", s)
	}
	u := Upstream{Name: name, Bootstrap: strings.Split(addresses, ",")}
	for _, a := range u.Bootstrap {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return Upstream{}, fmt.Errorf("%q is not HOST:PORT", a)
		}
	}
	return u, nil
}

// The layout of ports above Config.PortBase. The first is kept for the portal's pages.
const (
	apiPort       = 1
	adminPort     = 10 // of the first node; one for each
	redisPort     = 19
	embeddedPorts = 20 // of the first embedded cluster; 10 for each
	clientPorts   = 101
	portsPerVC    = 20 // the bootstrap and 19 virtual brokers
)

func (c *Config) check() error {
	var errs []error
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen: %w", err))
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		errs = append(errs, fmt.Errorf("--listen: %q is no port that clients can be told", port))
	}
	if c.PortBase < 1 || c.PortBase+clientPorts+portsPerVC > 1<<16 {
		errs = append(errs, fmt.Errorf("--port-base: %d leaves no room below 65536", c.PortBase))
	}
	if most := redisPort - adminPort; c.Nodes < 0 || c.Nodes > most {
		errs = append(errs, fmt.Errorf("--nodes: must be 1 to %d", most))
	}
	if c.Domain == "" {
		errs = append(errs, errors.New("--domain is empty"))
	}
	for i, u := range c.Upstreams {
		if slices.ContainsFunc(c.Upstreams[:i], func(o Upstream) bool { return o.Name == u.Name }) {
			errs = append(errs, fmt.Errorf("--upstream: %s is given twice", u.Name))
		}
	}
	return errors.Join(errs...)
}
