package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
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

	// The control plane outlives the nodes, which say good-bye to it.
	planeCtx, stopPlane := context.WithCancel(context.WithoutCancel(ctx))
	nodesCtx, stopNodes := context.WithCancel(ctx)
	var planeWork, work sync.WaitGroup
	defer func() {
		stopNodes()
		work.Wait()
		stopPlane()
		planeWork.Wait()
	}()
	ended := make(chan error, 4)
	if r.plane, err = r.startPlane(planeCtx, &planeWork, ended); err != nil {
		return err
	}
	defer r.plane.client.Close()
	r.files = &files{dir: r.resources, upstreams: r.added, database: cfg.Database, state: cfg.State, plane: r.plane}
	if err := r.files.apply(ctx); err != nil {
		return fmt.Errorf("apply resources from %s:\n%w", r.resources, err)
	}
	revision, set, err := r.plane.resources(ctx)
	if err != nil {
		return err
	}
	d, err := r.describe(ctx, set)
	if err != nil {
		return err
	}
	if err := r.furnish(d); err != nil {
		return err
	}
	if err := r.startNodes(nodesCtx, &work, r.plane, ended); err != nil {
		return err
	}
	r.note(d)
	started := make(chan error, 1)
	work.Go(func() { started <- r.verify(nodesCtx, d) })
	select {
	case err := <-ended:
		return err
	case err := <-started:
		if ctx.Err() != nil {
			return nil // stopped while it started
		}
		if err != nil {
			return err
		}
	}
	if err := r.furnish(d); err != nil { // what was seen on the way
		return err
	}
	if err := r.announce(d); err != nil {
		return err
	}
	info := filepath.Join(cfg.State, infoFile)
	defer os.Remove(info)
	work.Go(func() { r.files.follow(nodesCtx, r) })
	work.Go(func() { r.update(nodesCtx, d, revision) })
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	// Nobody new is to be led here while the sessions drain.
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	removed := os.Remove(info)
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil
	}
	stopNodes()
	work.Wait()
	return errors.Join(err, removed)
}

// lock keeps a second run off the directory.
func lock(state string) (unlock func(), err error) {
	if unlock, err = lockFile(filepath.Join(state, "lock"), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%w: another tollgate dev runs on %s", err, state)
	}
	return unlock, nil
}

func lockFile(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
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

	plane   *plane
	files   *files
	running []node

	mu    sync.Mutex
	names []string // of the certificate
	ended bool     // dev.json is gone for good
	lost  []string // ids of nodes that have ended by themselves
}

func (r *run) producerIDs() string {
	if r.cfg.Redis != "" {
		return r.cfg.Redis
	}
	return "file:" + filepath.Join(r.cfg.State, "producer-ids")
}

// startUpstreams decides which physical clusters there are: those of --upstream,
// or embedded ones, which are left out where a resource file defines a cluster of
// the name.
func (r *run) startUpstreams(ctx context.Context) error {
	defined := make(map[string]bool)
	if r.resources == "" {
		r.resources = filepath.Join(r.cfg.State, "resources")
	} else {
		defined = definedClusters(r.resources)
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
	if err := r.write(d); err != nil {
		return err
	}
	fmt.Fprintf(r.cfg.Out, "Tollgate serves on %s. CA: %s\n", d.info.Listen, d.info.CAFile)
	for _, vc := range d.info.VirtualClusters {
		fmt.Fprintln(r.cfg.Out, vc.summary())
	}
	fmt.Fprintf(r.cfg.Out, "API: %s, described at %s/docs\nLogins and everything else: %s\nInterrupt to stop.\n", d.info.API, d.info.API, filepath.Join(r.cfg.State, infoFile))
	return nil
}
