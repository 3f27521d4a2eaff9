package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/portal"
)

// plane is the control plane of a run: a Redis, and a portal on a database.
type plane struct {
	redis     string // URL
	api       string // URL
	keys      string // file with the public key that proxies believe
	opsToken  string
	nodeToken secret.Secret
	client    *client.Client
}

// startPlane starts what a run needs of a control plane. What it starts ends with
// ctx, and is waited for by wg; ended hears of a portal that ends by itself.
func (r *run) startPlane(ctx context.Context, wg *sync.WaitGroup, ended chan<- error) (*plane, error) {
	p := &plane{redis: r.cfg.Redis, keys: filepath.Join(r.cfg.State, "portal.pub")}
	if p.redis == "" {
		var err error
		if p.redis, err = r.startRedis(ctx, wg); err != nil {
			return nil, err
		}
	}
	key := filepath.Join(r.cfg.State, "portal.key")
	if err := signingKey(key, p.keys); err != nil {
		return nil, err
	}
	database := r.cfg.Database
	if database == "" {
		database = "sqlite:" + filepath.Join(r.cfg.State, "portal.db")
	}
	ops := filepath.Join(r.cfg.State, "ops.token")
	ready := make(chan string, 1)
	failed := make(chan error, 1)
	wg.Go(func() {
		err := portal.Run(ctx, portal.Config{
			Listen: r.at(apiPort), Database: database, Redis: p.redis, SigningKey: key, FirstToken: ops,
			Audit: portal.Audit{Topic: auditTopic, Cluster: r.mainCluster(), Create: true},
			Log:   r.cfg.Log.With("service", "portal"), DrainTimeout: time.Second,
			Ready: func(addresses map[string]string) { ready <- addresses[portal.APIAddress] },
		})
		failed <- err
		if ctx.Err() == nil {
			ended <- fmt.Errorf("the portal ended: %w", err)
		}
	})
	select {
	case err := <-failed:
		return nil, fmt.Errorf("start the portal: %w", err)
	case address := <-ready:
		p.api = "http://" + address
	}
	text, err := os.ReadFile(ops)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the database %s has tokens of ops, and none of them is in %s: put one there, or take another database", database, ops)
	}
	if err != nil {
		return nil, err
	}
	p.opsToken = strings.TrimSpace(string(text))
	if p.client, err = client.New(client.Options{Server: p.api, Token: secret.New(p.opsToken)}); err != nil {
		return nil, err
	}
	p.nodeToken, err = p.tokenOfNodes(ctx, filepath.Join(r.cfg.State, "node.token"))
	return p, err
}

// auditTopic is where the log of changes goes, on the main cluster.
const auditTopic = "tollgate.audit"

// mainCluster is the first of --upstream, or the one of that name.
func (r *run) mainCluster() string {
	if len(r.cfg.Upstreams) > 0 {
		return r.cfg.Upstreams[0].Name
	}
	return "main"
}

// at is an address of this machine, by its place behind the port base.
func (r *run) at(offset int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.cfg.PortBase+offset))
}

// startRedis embeds one, whose clock has to be moved.
func (r *run) startRedis(ctx context.Context, wg *sync.WaitGroup) (string, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr(r.at(redisPort)); err != nil {
		return "", fmt.Errorf("start the embedded Redis: %w", err)
	}
	wg.Go(func() {
		defer m.Close()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				m.FastForward(now.Sub(last))
				last = now
			}
		}
	})
	return "redis://" + m.Addr(), nil
}

// signingKey makes the portal's key, once.
func signingKey(private, public string) error {
	text, err := os.ReadFile(private)
	if errors.Is(err, fs.ErrNotExist) {
		signer, err := bundle.NewSigner()
		if err != nil {
			return err
		}
		if text, err = signer.Private(); err != nil {
			return err
		}
		if err := WriteFile(private, text, 0o600); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	signer, err := bundle.ParseSigner(text)
	if err != nil {
		return fmt.Errorf("%s: %w", private, err)
	}
	if text, err = signer.Public(); err != nil {
		return err
	}
	return WriteFile(public, text, 0o644)
}

// tokenOfNodes is the one of an earlier run, while it is good.
func (p *plane) tokenOfNodes(ctx context.Context, file string) (secret.Secret, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return secret.Secret{}, err
	}
	if shown := strings.TrimSpace(string(text)); shown != "" {
		for t, err := range p.client.Tokens(ctx) {
			if err != nil {
				return secret.Secret{}, err
			}
			if t.Revoked.IsZero() && strings.HasPrefix(shown, "tg_"+t.ID+"_") {
				return secret.New(shown), nil
			}
		}
	}
	made, err := p.client.CreateToken(ctx, client.NewToken{Name: "nodes of tollgate dev", Role: "node"})
	if err != nil {
		return secret.Secret{}, err
	}
	return secret.New(made.Token), WriteFile(file, []byte(made.Token+"\n"), 0o600)
}

// revision is that of the last change.
func (p *plane) revision(ctx context.Context) (int64, error) {
	for e, err := range p.client.Audit(ctx, client.AuditQuery{PageSize: 1}) {
		if err != nil {
			return 0, err
		}
		return e.Revision, nil
	}
	return 0, nil
}

// resources are everything that is stored, as of a revision or newer.
func (p *plane) resources(ctx context.Context) (revision int64, set *resource.Set, err error) {
	if revision, err = p.revision(ctx); err != nil {
		return 0, nil, err
	}
	var objects []resource.Object
	for _, kind := range resource.Kinds {
		for o, err := range p.client.List(ctx, client.ListOptions{Kind: kind}) {
			if err != nil {
				return 0, nil, err
			}
			objects = append(objects, o.Object)
		}
	}
	return revision, resource.NewSet(objects...), nil
}
