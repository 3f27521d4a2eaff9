package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy"
)

// startTimeout is for everything to serve.
const startTimeout = 90 * time.Second

// Run serves until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	var err error
	if cfg.State, err = filepath.Abs(cfg.State); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return err
	}
	unlock, err := lock(cfg.State)
	if err != nil {
		return err
	}
	defer unlock()
	// A run that was killed left its own behind.
	if err := os.Remove(filepath.Join(cfg.State, infoFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	r := &run{cfg: cfg, resources: cfg.Resources}
	defer func() {
		for _, c := range r.embedded {
			c.Close()
		}
	}()
	if err := r.startUpstreams(ctx); err != nil {
		return err
	}
	assembled := filepath.Join(cfg.State, "assembled")
	if err := assemble(assembled, r.resources, r.added); err != nil {
		return err
	}
	set, err := resource.LoadDir(assembled)
	if err != nil {
		return fmt.Errorf("load resources from %s: %w", r.resources, err)
	}
	if cfg.Resources == "" {
		for i, u := range r.upstreams[:min(len(r.upstreams), len(seededTopics))] {
			topics := seededTopics[i]
			if len(r.upstreams) == 1 {
				topics = slices.Concat(seededTopics[:]...)
			}
			if err := createTopics(ctx, u, topics); err != nil {
				return err
			}
		}
	}
	d, err := r.describe(ctx, set)
	if err != nil {
		return err
	}
	if err := r.furnish(d); err != nil {
		return err
	}

	serveCtx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { follow(serveCtx, cfg.Log, assembled, r.resources, r.added) })
	ready := make(chan struct{})
	served := make(chan error, 1)
	applied := make(chan *resource.Set, 1)
	wg.Go(func() {
		served <- proxy.Run(serveCtx, proxy.Config{
			Resources: assembled, Domains: []string{cfg.Domain}, Log: cfg.Log, PortsOf: r.portsOf,
			Listeners:   []proxy.Listener{{Name: "sni", Address: cfg.Listen, Routing: proxy.BySNI, Certificates: []proxy.KeyPair{keyPair(cfg.State)}}},
			ProducerIDs: r.producerIDs(),
			Admin:       r.admin(), DrainTimeout: 5 * time.Second, Ready: func(map[string]string) { close(ready) },
			Applied: func(set *resource.Set) {
				select {
				case <-applied: // a set that nobody has looked at yet
				default:
				}
				applied <- set
			},
		})
	})
	defer stop() // before the wait
	select {
	case err := <-served:
		return err
	case <-ready:
	}
	verified := make(chan error, 1)
	wg.Go(func() { verified <- r.verify(serveCtx, d) })
	select {
	case err := <-served:
		return err
	case err := <-verified:
		if ctx.Err() != nil {
			break // stopped while it started
		}
		if err != nil {
			return err
		}
		if err := r.furnish(d); err != nil { // what was seen on the way
			return err
		}
		admin := "http://" + r.admin() + "/metrics"
		if err := answers(serveCtx, admin); err != nil {
			return err
		}
		r.metrics = admin
		if err := r.announce(d); err != nil {
			return err
		}
		defer os.Remove(filepath.Join(cfg.State, infoFile))
		updating, endUpdates := context.WithCancel(serveCtx)
		updated := make(chan struct{})
		wg.Go(func() { r.update(updating, d, applied); close(updated) })
		defer func() { endUpdates(); <-updated }() // before dev.json is removed
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	// Nobody new is to be led here while the sessions drain.
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	removed := os.Remove(filepath.Join(cfg.State, infoFile))
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil
	}
	return errors.Join(<-served, removed)
}

// lock keeps a second run off the directory.
func lock(state string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: another tollgate dev runs on it: %w", state, err)
	}
	return func() { f.Close() }, nil
}

// run is what one run is made of.
type run struct {
	cfg       Config
	resources string
	embedded  []*kfake.Cluster
	upstreams []Upstream // the first is home of the seed, the second lends to it too
	added     []Upstream // those that no resource file defines

	metrics string // address, once it answers

	mu    sync.Mutex
	nodes map[string][]int32 // broker ids of each cluster
	names []string           // of the certificate
	ended bool               // dev.json is gone for good
}

func (r *run) producerIDs() proxy.ProducerIDs {
	if r.cfg.Redis != "" {
		return proxy.ProducerIDs{Source: r.cfg.Redis}
	}
	return proxy.ProducerIDs{Source: "file:" + filepath.Join(r.cfg.State, "producer-ids")}
}

func (r *run) admin() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.cfg.PortBase+adminPort))
}

// answers says why nothing good comes from an address.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// A spare connection would hold up the server's shutdown.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, response.Status)
	}
	return nil
}

// startUpstreams decides which physical clusters there are: those of --upstream,
// or embedded ones, which are left out where a resource file defines a cluster of
// the name.
func (r *run) startUpstreams(ctx context.Context) error {
	defined := make(map[string]bool)
	if r.resources == "" {
		r.resources = filepath.Join(r.cfg.State, "resources")
	} else {
		var err error
		if defined, err = definedClusters(r.resources); err != nil {
			return fmt.Errorf("--resources: %w", err)
		}
	}
	r.upstreams = r.cfg.Upstreams
	if len(r.upstreams) == 0 {
		for i, name := range []string{"main", "west"} {
			if defined[name] {
				continue
			}
			u, err := r.embed(name, r.cfg.PortBase+embeddedPorts+10*i)
			if err != nil {
				return err
			}
			r.upstreams = append(r.upstreams, u)
		}
	}
	for _, u := range r.upstreams {
		if !defined[u.Name] {
			r.added = append(r.added, u)
		}
	}
	if r.cfg.Resources == "" {
		return seed(r.resources, r.upstreams)
	}
	return nil
}

// embed starts a cluster that keeps its data in the state directory.
func (r *run) embed(name string, port int) (Upstream, error) {
	c, err := kfake.NewCluster(
		kfake.ClusterID("tollgate-dev-"+name),
		kfake.Ports(port, port+1, port+2),
		kfake.DefaultNumPartitions(3),
		kfake.DataDir(filepath.Join(r.cfg.State, "kafka", name)),
	)
	if err != nil {
		return Upstream{}, fmt.Errorf("start the embedded cluster %s on ports %d to %d: %w", name, port, port+2, err)
	}
	r.embedded = append(r.embedded, c)
	return Upstream{Name: name, Bootstrap: c.ListenAddrs()}, nil
}

// announce tells programs, then people, that everything serves.
func (r *run) announce(d *description) error {
	d.info.Nodes[0].Metrics = r.metrics
	if err := r.write(d); err != nil {
		return err
	}
	fmt.Fprintf(r.cfg.Out, "Tollgate serves on %s. CA: %s\n", d.info.Listen, d.info.CAFile)
	for _, vc := range d.info.VirtualClusters {
		fmt.Fprintln(r.cfg.Out, vc.summary())
	}
	fmt.Fprintf(r.cfg.Out, "Logins and everything else: %s\nInterrupt to stop.\n", filepath.Join(r.cfg.State, infoFile))
	return nil
}
