// Package proxy is the data plane: Kafka clients come in over TLS, are routed by
// host name to a virtual cluster, and speak to physical clusters through it.
//
// [Run] serves until its context ends. What it serves comes from a directory of
// resource files ([Config.Resources]), which is watched: a change is put under the
// live sessions, and a mistake in it changes nothing but the log, the readiness
// detail and a metric. Or it comes from a control plane ([Config.Control]): each
// virtual cluster when its first client does, and every change of it within a second.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"time"

	"tollgate.internal/pkg/bundle"
	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/proxy/internal/fleet"
	"tollgate.internal/services/proxy/internal/listener"
)

// The listener's own words, for those who configure one.
type (
	// Listener is one configured listener.
	Listener = listener.Spec
	// KeyPair is a certificate chain and its private key, in PEM files.
	KeyPair = listener.KeyPair
	// PortRange gives virtual brokers their ports.
	PortRange = listener.PortRange
	// ClientLimits bound what clients hold before and after they are known.
	ClientLimits = listener.Limits
)

// How a listener routes, and the security protocols.
const (
	BySNI         = listener.BySNI
	ByPort        = listener.ByPort
	TLS           = listener.TLS
	SSL           = listener.SSL
	SASLSSL       = listener.SASLSSL
	Plaintext     = listener.Plaintext
	SASLPlaintext = listener.SASLPlaintext
)

// AdminAddress is the name of the admin listener among the addresses that
// Config.Ready is told.
const AdminAddress = "admin"

// Config is everything a proxy needs. Zero values get the defaults beside them.
type Config struct {
	Resources string     // directory of resource files
	Control   *Control   // in place of Resources: the control plane
	Domains   []string   // virtual clusters are <host>.<domain>
	Listeners []Listener // at least one
	Admin     string     // address of the admin listener; empty: none
	Log       *slog.Logger

	// SaltKey makes the SCRAM salts of users that do not exist, and of passwords
	// in files. All nodes of a fleet share one, and keep it: salts that change
	// from node to node would tell which users exist. Empty: random.
	SaltKey []byte

	// ProducerIDs is where the ids of idempotent producers come from. All nodes of
	// a fleet share the source and the deployment. Without a source, a virtual
	// cluster with one cluster has that one's ids, and one with several gives none.
	ProducerIDs ProducerIDs

	// Fleet is how the node shares the clients with others.
	Fleet Fleet

	Limits        ClientLimits
	MaxFrameBytes int32         // of one request; 100 MiB, as socket.request.max.bytes
	RequestMemory int64         // for large request frames in the whole node, and as much for answers that are held whole; 512 MiB
	InFlight      int           // Produce or Fetch requests of one client, before it is not read until they are answered; 64
	FrameTimeout  time.Duration // for a request to arrive once it has begun; 60 s
	StallTimeout  time.Duration // for a client to take some of an answer that waits for it; 30 s
	DrainGrace    time.Duration // from not being ready to not accepting any more, when the node drains; 0: none
	DrainSpread   time.Duration // over which sessions are asked to end then; 0: all at once
	DrainTimeout  time.Duration // for the last of them to finish after that; 30 s
	ReloadEvery   time.Duration // how often the resource files are looked at; 250 ms

	// Listen and Dial are how the proxy reaches the network, for clients and for
	// brokers; nil: TCP.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)

	// Usage is called once, before anything is served, with the counters of the
	// node: each range over them reads all of them as they are then. Optional.
	Usage func(counters iter.Seq[Usage])

	// PortsOf gives virtual clusters listeners by port of their own, besides
	// Listeners: it is asked for each one that comes into service or was changed.
	// Optional.
	PortsOf func(vc *resource.VirtualCluster) (l Listener, ok bool)
	// Applied is called after a change of the resources was put into service.
	// Optional.
	Applied func(set *resource.Set)

	// Ready is called once, when every listener accepts and the resources are
	// loaded, with the address of each listener by name. Optional.
	Ready func(addresses map[string]string)

	source fleet.Source     // of Control; tests have others
	self   func(fleet.Self) // of tests
}

// Control says where a node of a fleet learns what it serves.
type Control struct {
	// Redis is the URL of the Redis that carries the fleet: redis://, rediss://, unix://,
	// and the Sentinel and Cluster forms of go-redis. RedisPassword, if there is one, takes
	// the place of the URL's.
	Redis         string
	RedisPassword secret.Secret
	// PublicKeys are of those who may sign what the node serves, the portal's: the
	// present one, and while it is replaced the next one too.
	PublicKeys bundle.Keyring
	// State is a directory of this node alone: what it was told is kept there, and served
	// when Redis is away.
	State string
	// Deployment tells fleets on one Redis apart.
	Deployment string // default
	Node       string // id, another for each node
	Rack       string // of the node, as brokers name it
	// API is the URL of the portal's API and APIToken the node's own token; empty: what
	// tenants change by Kafka's admin protocol is refused.
	API      string
	APIToken secret.Secret
	// Preload loads everything at the start and keeps it: for a node that serves by
	// port, where no host name brings a virtual cluster, and for small fleets.
	Preload bool
	// UnloadAfter is how long a virtual cluster without sessions stays in memory; 1 h.
	UnloadAfter time.Duration
}

// ProducerIDs says where the ids of idempotent producers come from.
type ProducerIDs struct {
	Source     string        // file:PATH, or the URL of a Redis; empty: none
	Password   secret.Secret // of the Redis; empty: the URL's
	Deployment int           // 0 to 1023: another for each fleet that reaches the same clusters
}

// Usage is what one principal produced to one topic, or was sent of it, since the
// node started: counted when the broker accepted it or the client was sent it. A
// counter only grows, and outlives the session, the topic and the principal.
type Usage struct {
	VirtualCluster, Principal string
	Topic                     string // as the client knows it
	Cluster                   string // upstream
	Direction                 string // "produced" or "fetched"
	Bytes                     uint64 // of record batches, as they were on the wire
	Records                   uint64
	Requests                  uint64 // that carried records of the topic
}

func (c *Config) defaults() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = 100 << 20
	}
	if c.RequestMemory == 0 {
		c.RequestMemory = 512 << 20
	}
	if c.FrameTimeout == 0 {
		c.FrameTimeout = time.Minute
	}
	if c.InFlight == 0 {
		c.InFlight = 64
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = 30 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.ReloadEvery == 0 {
		c.ReloadEvery = 250 * time.Millisecond
	}
	var errs []error
	switch {
	case c.Resources == "" && c.Control == nil:
		errs = append(errs, errors.New("neither a resource directory nor a control plane: give --resources or --control-redis"))
	case c.Resources != "" && c.Control != nil:
		errs = append(errs, errors.New("both a resource directory and a control plane: a node serves what one of them says"))
	case c.Control != nil:
		if c.Control.Deployment == "" {
			c.Control.Deployment = string(board.DefaultDeployment)
		}
		if c.Control.UnloadAfter == 0 {
			c.Control.UnloadAfter = time.Hour
		}
	}
	if len(c.Listeners) == 0 && c.PortsOf == nil {
		errs = append(errs, errors.New("no listeners"))
	}
	if c.RequestMemory < int64(c.MaxFrameBytes) {
		errs = append(errs, fmt.Errorf("request memory of %d bytes is less than one request of %d may take", c.RequestMemory, c.MaxFrameBytes))
	}
	if field, err := c.Fleet.Check(c.Domains, c.Listeners); err != nil {
		errs = append(errs, fmt.Errorf("fleet: %s: %w", field, err))
	} else if c.Fleet.Balancing == Internal && c.Fleet.Members == nil && c.Control == nil {
		errs = append(errs, errors.New("fleet: internal balancing needs a control plane, which knows the other nodes"))
	}
	return errors.Join(errs...)
}

// Run serves until ctx ends, then drains: it is not ready, stops accepting after
// Config.DrainGrace, moves the sessions off over Config.DrainSpread, each when what it has
// in flight is finished, and closes the rest after Config.DrainTimeout. A mistake in the
// configuration or the resources is returned at once, every problem in it.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.defaults(); err != nil {
		return err
	}
	if cfg.Control != nil {
		return runControlled(ctx, &cfg)
	}
	f := &files{dir: cfg.Resources}
	set, err := f.load()
	if err != nil {
		return fmt.Errorf("load resources from %s:\n%w", cfg.Resources, err)
	}
	g, err := newGateway(&cfg)
	if err != nil {
		return err
	}
	defer g.close()
	g.files = f
	if err := g.apply(set); err != nil {
		return err
	}
	return g.run(ctx)
}
