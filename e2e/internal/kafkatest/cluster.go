// Package kafkatest starts clusters of real Apache Kafka brokers.
//
// [Start] and [Shared] serve tests, [StartCluster] everything else. A cluster is
// ready when it is returned: every broker lists every other, the internal topics
// exist and their coordinators answer. Nothing here waits for time to pass, only
// for a condition that a client can see.
//
// Brokers listen on loopback only, never outlive the process that started them,
// and keep their ports and data over [Broker.Restart].
package kafkatest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"tollgate.internal/e2e/internal/kafkajars"
	"tollgate.internal/e2e/internal/ports"
	"tollgate.internal/e2e/internal/testpki"
)

// A Cluster is a running cluster.
type Cluster struct {
	// Options as they came out: with version, ids, listeners and users filled in.
	Options Options
	// ID is the cluster id that brokers and clients see.
	ID string
	// PKI signed the brokers' certificates and those of mTLS clients.
	PKI *testpki.CA
	// CAFile is the PKI's certificate; ClientCertFile and ClientKeyFile belong to
	// a client that brokers call User:CN=gateway,OU=Clients,O=Tollgate.
	CAFile, ClientCertFile, ClientKeyFile string

	dir      string
	ownDir   bool // made here, so removed by Close
	keystore string
	jars     *kafkajars.Jars
	ports    *ports.Lease
	client   *testpki.Pair
	brokers  []*Broker

	closing sync.Once
	closed  error
}

// StartCluster starts a cluster that keeps its data below dir, or in a temporary
// folder when dir is empty, and returns it when it is ready. The caller ends it
// with [Cluster.Close].
func StartCluster(ctx context.Context, dir string, options Options) (*Cluster, error) {
	o, err := options.normal()
	if err != nil {
		return nil, fmt.Errorf("start Kafka: %w", err)
	}
	c := &Cluster{Options: o, dir: dir}
	if err := c.start(ctx); err != nil {
		if tail := c.LogTail(25); tail != "" {
			err = fmt.Errorf("%w\n%s", err, tail)
		}
		return nil, errors.Join(fmt.Errorf("start Kafka %s: %w", o.Version, err), c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	var err error
	if c.jars, err = kafkajars.Get(ctx, c.Options.Version); err != nil {
		return err
	}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "tollgate-kafka-"); err != nil {
			return err
		}
		c.ownDir = true
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	if c.ID, err = newID(); err != nil {
		return err
	}
	if err := c.certify(); err != nil {
		return err
	}
	for _, id := range c.Options.NodeIDs {
		b := &Broker{ID: id, cluster: c, dir: filepath.Join(c.dir, fmt.Sprint(id))}
		b.config = filepath.Join(b.dir, "server.properties")
		c.brokers = append(c.brokers, b)
		if err := os.MkdirAll(b.dir, 0o755); err != nil {
			return err
		}
	}
	if err := c.assignPorts(); err != nil {
		return err
	}
	formats, formatCtx := errgroup.WithContext(ctx)
	for _, b := range c.brokers {
		formats.Go(func() error { return b.format(formatCtx) })
	}
	if err := formats.Wait(); err != nil {
		return err
	}
	for _, b := range c.brokers {
		if err := b.launch(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// assignPorts gives every broker ports that it did not have before, and writes its
// configuration.
func (c *Cluster) assignPorts() error {
	listeners := c.Options.listeners()
	each := len(listeners) + 1
	lease, err := ports.Reserve(each * len(c.brokers))
	if err != nil {
		return err
	}
	if c.ports != nil {
		c.ports.Release() // after the reservation, which so cannot get the same again
	}
	c.ports = lease
	for i, b := range c.brokers {
		own := lease.Ports[i*each : (i+1)*each]
		b.mu.Lock()
		b.ports, b.controllerPort = map[Listener]int{}, own[each-1]
		for j, l := range listeners {
			b.ports[l] = own[j]
		}
		b.mu.Unlock()
	}
	for _, b := range c.brokers { // which names the ports of all
		if err := os.WriteFile(b.config, encode(c.properties(b)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Move kills all brokers and starts them again on other ports, with their data and
// ids, as a cluster that was moved to other machines. It returns when the cluster
// is ready. Addresses are to be asked for anew; not to be called while another
// goroutine stops or starts brokers.
func (c *Cluster) Move(ctx context.Context) error {
	for _, b := range c.brokers {
		if err := b.Kill(); err != nil {
			return err
		}
	}
	if err := c.assignPorts(); err != nil {
		return fmt.Errorf("move Kafka %s: %w", c.Options.Version, err)
	}
	for _, b := range c.brokers {
		if err := b.launch(); err != nil {
			return err
		}
	}
	if err := c.WaitReady(ctx); err != nil {
		return fmt.Errorf("move Kafka %s: %w\n%s", c.Options.Version, err, c.LogTail(25))
	}
	return nil
}

func (c *Cluster) certify() error {
	var err error
	if c.PKI, err = testpki.New("Tollgate test CA"); err != nil {
		return err
	}
	if c.CAFile, err = c.PKI.Write(c.dir, "ca"); err != nil {
		return err
	}
	server, err := c.PKI.Server(c.Options.ServerNames...)
	if err != nil {
		return err
	}
	// One file with key, certificate and authority, in this order, is what Kafka calls a PEM keystore.
	c.keystore = filepath.Join(c.dir, "broker.pem")
	if err := os.WriteFile(c.keystore, slices.Concat(server.KeyPEM, server.CertPEM, c.PKI.PEM), 0o600); err != nil {
		return err
	}
	c.client, err = c.PKI.Client(pkix.Name{
		CommonName: "gateway", OrganizationalUnit: []string{"Clients"}, Organization: []string{"Tollgate"},
	})
	if err != nil {
		return err
	}
	c.ClientCertFile, c.ClientKeyFile, err = c.client.Write(c.dir, "client")
	return err
}

// Close kills the brokers, waits for them and gives their ports back. The data
// goes too if StartCluster chose where it lies.
func (c *Cluster) Close() error {
	c.closing.Do(func() {
		var errs []error
		for _, b := range c.brokers {
			errs = append(errs, b.Kill())
		}
		if c.ports != nil {
			c.ports.Release()
		}
		if c.ownDir {
			errs = append(errs, os.RemoveAll(c.dir))
		}
		c.closed = errors.Join(errs...)
	})
	return c.closed
}

// Bootstrap is the comma-separated list of all brokers' PLAINTEXT addresses.
func (c *Cluster) Bootstrap() string { return c.BootstrapOn(PLAINTEXT) }

// BootstrapOn is the same for another listener.
func (c *Cluster) BootstrapOn(l Listener) string { return strings.Join(c.Seeds(l), ",") }

// Seeds are all brokers' addresses on a listener.
func (c *Cluster) Seeds(l Listener) []string {
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, b.Addr(l))
	}
	return addrs
}

// Broker is the broker with this node id; one that does not exist panics.
func (c *Cluster) Broker(id int32) *Broker {
	for _, b := range c.brokers {
		if b.ID == id {
			return b
		}
	}
	panic(fmt.Sprintf("no broker %d among %v", id, c.Options.NodeIDs))
}

// Brokers are all brokers in the order of Options.NodeIDs.
func (c *Cluster) Brokers() []*Broker { return slices.Clone(c.brokers) }

// Password is a SASL user's password; a user that does not exist panics.
func (c *Cluster) Password(user string) string {
	password, ok := c.Options.Users[user]
	if !ok {
		panic(fmt.Sprintf("no user %q among %v", user, slices.Sorted(maps.Keys(c.Options.Users))))
	}
	return password
}

// TLS is a client's configuration for the SASL listener.
func (c *Cluster) TLS() *tls.Config { return &tls.Config{RootCAs: c.PKI.Pool()} }

// MTLS is a client's configuration for the MTLS listener, with the certificate of ClientCertFile.
func (c *Cluster) MTLS() *tls.Config {
	return &tls.Config{RootCAs: c.PKI.Pool(), Certificates: []tls.Certificate{c.client.TLS()}}
}

// Dir is where configuration, logs and data lie.
func (c *Cluster) Dir() string { return c.dir }

// LogTail is the end of every broker's log.
func (c *Cluster) LogTail(lines int) string {
	var all []string
	for _, b := range c.brokers {
		if tail := b.LogTail(lines); tail != "" {
			all = append(all, tail)
		}
	}
	return strings.Join(all, "\n")
}

// newID makes a cluster id: 22 characters that StorageTool does not take for an option.
func newID() (string, error) {
	for {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return "", err
		}
		if id := base64.RawURLEncoding.EncodeToString(b[:]); id[0] != '-' {
			return id, nil
		}
	}
}

func (c *Cluster) java(ctx context.Context, args ...string) (*exec.Cmd, error) {
	java, err := kafkajars.Java()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, java, args...), nil
}

// NewClient is a franz-go client on the PLAINTEXT listener: with all rights.
func (c *Cluster) NewClient(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Seeds(PLAINTEXT)...),
		// With the default a first produce to a new topic takes two seconds.
		kgo.MetadataMinAge(100 * time.Millisecond),
	}, opts...)...)
}
