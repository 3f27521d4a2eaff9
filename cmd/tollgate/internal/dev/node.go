package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/proxy"
)

// nodeConfig is what a node has to know: in a file, as it may be a process of its own.
type nodeConfig struct {
	ID          string   `json:"id"`
	State       string   `json:"state"` // of the whole run
	Host        string   `json:"host"`
	Listen      string   `json:"listen"`
	Domain      string   `json:"domain"`
	Own         string   `json:"own,omitempty"`    // domain of the node; empty: it is the only one
	Others      []string `json:"others,omitempty"` // domains of the other nodes
	Admin       string   `json:"admin"`
	PortBase    int      `json:"portBase"`
	Redis       string   `json:"redis"`
	Keys        string   `json:"keys"`
	API         string   `json:"api"`
	Token       string   `json:"token"`
	ProducerIDs string   `json:"producerIDs"`
	Debug       bool     `json:"debug,omitempty"`
}

// proxy is the node's own configuration.
func (n *nodeConfig) proxy(log *slog.Logger) (proxy.Config, error) {
	text, err := os.ReadFile(n.Keys)
	if err != nil {
		return proxy.Config{}, err
	}
	keys, err := bundle.ParseKeyring(text)
	if err != nil {
		return proxy.Config{}, fmt.Errorf("%s: %w", n.Keys, err)
	}
	state := filepath.Join(n.State, "nodes", n.ID)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return proxy.Config{}, err
	}
	var fleet proxy.Fleet
	if n.Own != "" {
		fleet = proxy.Fleet{Balancing: proxy.Internal, Advertise: n.Own}
	}
	return proxy.Config{
		Fleet: fleet,
		Control: &proxy.Control{
			Redis: n.Redis, PublicKeys: keys, State: state, Node: n.ID,
			API: n.API, APIToken: secret.New(n.Token), Preload: true,
		},
		Domains: append([]string{n.Domain}, n.Others...), Log: log.With("node", n.ID),
		PortsOf: func(vc *resource.VirtualCluster) (proxy.Listener, bool) {
			l, ok, err := n.portsOf(vc)
			if err != nil {
				log.Error("no listener by port", "virtual_cluster", vc.Metadata.Name, "err", err)
			}
			return l, ok
		},
		Listeners:   []proxy.Listener{{Name: "sni", Address: n.Listen, Routing: proxy.BySNI, Certificates: []proxy.KeyPair{keyPair(n.State)}}},
		ProducerIDs: proxy.ProducerIDs{Source: n.ProducerIDs},
		Admin:       n.Admin, DrainTimeout: 5 * time.Second,
	}, nil
}

// portsOf is the listener by port of a virtual cluster.
func (n *nodeConfig) portsOf(vc *resource.VirtualCluster) (proxy.Listener, bool, error) {
	slots, err := portSlots(n.State, []string{vc.Metadata.Name})
	if err != nil {
		return proxy.Listener{}, false, err
	}
	first := n.PortBase + clientPorts + portsPerVC*slots[vc.Metadata.Name]
	if first+portsPerVC > 1<<16 {
		return proxy.Listener{}, false, errors.New("no port below 65536 is left: choose a lower --port-base")
	}
	nodes, err := readNodes(n.State)
	if err != nil {
		return proxy.Listener{}, false, err
	}
	l, ok := portListener(vc, n.Host, first, nodes)
	return l, ok, nil
}

// RunNode is a node as a process of its own: it ends with the process that started
// it, which holds the other end of stdin.
func RunNode(ctx context.Context, file string, stdin io.Reader, stderr io.Writer) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var n nodeConfig
	if err := json.Unmarshal(text, &n); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	cfg, err := n.proxy(logger(stderr, n.Debug))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // to its end
		cancel()
	}()
	return proxy.Run(ctx, cfg)
}

func logger(w io.Writer, debug bool) *slog.Logger {
	level := slog.LevelWarn
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// lose has dev.json and the hosts file go on without a node.
func (r *run) lose(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = append(r.lost, id)
}

// gone are the nodes that have ended before the run has.
func (r *run) gone() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lost)
}

// node is one that runs.
type node struct {
	nodeConfig
	pid int
}

// nodeHost is where a node listens: each has an address of its own.
func (r *run) nodeHost(i int) string {
	if i == 0 {
		return r.address()
	}
	return "127.0.0." + strconv.Itoa(i+1)
}

// nodeDomains are the domains of several nodes, none of a single one: clients are sent
// to all of them. Each node answers to the names of the others as well, so that these
// can lead to it when a node is gone.
func (r *run) nodeDomains() (domains []string) {
	if r.cfg.Nodes < 2 {
		return nil
	}
	for i := range r.cfg.Nodes {
		domains = append(domains, nodeID(i)+"."+r.cfg.Domain)
	}
	return domains
}

func nodeID(i int) string { return fmt.Sprintf("node-%d", i+1) }

// startNodes starts the nodes: one in this process, or several in their own. Those that
// end by themselves are told to ended while they start, and later as well if the node is
// of this process; another may be killed, and the rest serves on.
func (r *run) startNodes(ctx context.Context, wg *sync.WaitGroup, p *plane, ended chan<- error) error {
	_, port, err := net.SplitHostPort(r.cfg.Listen)
	if err != nil {
		return err
	}
	for i := range max(1, r.cfg.Nodes) {
		n := nodeConfig{
			ID: nodeID(i), State: r.cfg.State, Host: r.nodeHost(i), Listen: net.JoinHostPort(r.nodeHost(i), port), Domain: r.cfg.Domain,
			Admin: r.at(adminPort + i), PortBase: r.cfg.PortBase, Redis: p.redis, Keys: p.keys, API: p.api, Token: p.nodeToken.Reveal(),
			ProducerIDs: r.producerIDs(), Debug: r.cfg.Log.Enabled(ctx, slog.LevelDebug),
		}
		if domains := r.nodeDomains(); domains != nil {
			n.Own, n.Others = domains[i], slices.Concat(domains[:i], domains[i+1:])
		}
		if r.cfg.Nodes == 0 {
			n.Listen = r.cfg.Listen
			if err := r.startHere(ctx, wg, n, ended); err != nil {
				return err
			}
			continue
		}
		if err := r.startChild(ctx, wg, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) startHere(ctx context.Context, wg *sync.WaitGroup, n nodeConfig, ended chan<- error) error {
	cfg, err := n.proxy(r.cfg.Log)
	if err != nil {
		return err
	}
	ready, failed := make(chan struct{}), make(chan error, 1)
	cfg.Ready = func(map[string]string) { close(ready) }
	wg.Go(func() {
		err := proxy.Run(ctx, cfg)
		failed <- err
		if ctx.Err() == nil || err != nil {
			ended <- err
		}
	})
	select {
	case err := <-failed:
		return err
	case <-ready:
	}
	r.running = append(r.running, node{n, os.Getpid()})
	return nil
}

// startChild starts a process and waits until it is ready.
func (r *run) startChild(ctx context.Context, wg *sync.WaitGroup, n nodeConfig) error {
	dir := filepath.Join(r.cfg.State, "nodes")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, n.ID+".json")
	if err := WriteFile(file, text, 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, "dev", "node", file)
	child.Stdout, child.Stderr = r.cfg.Err, r.cfg.Err
	stdin, err := child.StdinPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.ID, err)
	}
	failed := make(chan error, 1)
	wg.Go(func() {
		err := child.Wait()
		if ctx.Err() == nil {
			r.cfg.Log.Error("a node has ended, the others serve on", "node", n.ID, "pid", child.Process.Pid, "err", err)
			r.lose(n.ID)
		}
		failed <- err
	})
	wg.Go(func() {
		<-ctx.Done()
		stdin.Close() // it drains
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if answers(ctx, "http://"+n.Admin+"/readyz") == nil {
			r.running = append(r.running, node{n, child.Process.Pid})
			return nil
		}
		select {
		case err := <-failed:
			return fmt.Errorf("%s ended: %w", n.ID, err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
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
