package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // tells what was meddled with; nobody relies on it
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tollgate.internal/pkg/bundle"
)

// keepEntries is about how long the stream is. A proxy that was away for longer looks
// at everything it has loaded.
const keepEntries = 100_000

// batch is how much goes to Redis at once: enough to hide the way there, and no more
// than it answers within the bound of one command.
const batch = 200

// Publisher is the portal's side. Several may write at the same time: what is older
// never takes the place of what is newer.
//
// A change is published by [Publisher.Put], [Publisher.Announce], [Publisher.Advance],
// in this order, and each may be done again after it failed, or after Redis was lost.
type Publisher struct {
	board
	signer *bundle.Signer

	roster roster

	mu   sync.Mutex           // guards good
	good map[bundle.ID]proven // what was written there, or stood there when it was opened last
}

// proven is what was written, or opened.
type proven struct {
	revision int64
	sum      string
}

// NewPublisher publishes what signer signs. Trusted are the keys of portals that are
// at work beside it; the signer's own is always trusted.
func NewPublisher(client redis.UniversalClient, d Deployment, signer *bundle.Signer, trusted bundle.Keyring) (*Publisher, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	keys := signer.Keyring()
	for id, key := range trusted {
		keys[id] = key
	}
	return &Publisher{board: board{client, d, keys}, signer: signer, good: make(map[bundle.ID]proven)}, nil
}

// Sealed is a bundle as proxies are given it: compressed and signed, a small part of
// what it takes in memory.
type Sealed struct {
	bundle.ID
	Revision int64
	hosts    []string // that it claims
	data     []byte
}

// Size is what it takes, in bytes.
func (s *Sealed) Size() int { return len(s.data) }

// Seal makes a bundle ready to be put up.
func (p *Publisher) Seal(b *bundle.Bundle) (*Sealed, error) {
	if b.Deployment != string(p.deployment) {
		return nil, fmt.Errorf("publish %v: it is of deployment %q, not %q", b.ID, b.Deployment, p.deployment)
	}
	data, err := p.signer.SealBundle(b)
	if err != nil {
		return nil, fmt.Errorf("publish %v: %w", b.ID, err)
	}
	return &Sealed{ID: b.ID, Revision: b.Revision, hosts: b.Hosts(), data: data}, nil
}

// sealed is a bundle on its way.
type sealed struct {
	*Sealed
	before []string // hosts that the bundle it replaces had
	kept   bool     // a newer one stays
}

// Put is Seal and PutSealed.
func (p *Publisher) Put(ctx context.Context, bundles ...*bundle.Bundle) error {
	for some := range slices.Chunk(bundles, batch) {
		ready := make([]*Sealed, len(some))
		for i, b := range some {
			var err error
			if ready[i], err = p.Seal(b); err != nil {
				return err
			}
		}
		if err := p.PutSealed(ctx, ready...); err != nil {
			return err
		}
	}
	return nil
}

// PutSealed writes bundles and the hosts that they claim, and takes back the hosts that
// they no longer do. A bundle that is older than the one in Redis changes nothing.
func (p *Publisher) PutSealed(ctx context.Context, bundles ...*Sealed) error {
	for some := range slices.Chunk(bundles, batch) {
		todo := make([]*sealed, len(some))
		for i, s := range some {
			todo[i] = &sealed{Sealed: s}
		}
		if err := p.putBundles(ctx, todo); err != nil {
			return err
		}
		if err := p.putHosts(ctx, todo); err != nil {
			return err
		}
	}
	return nil
}

func (p *Publisher) putBundles(ctx context.Context, todo []*sealed) error {
	over := make(map[bundle.ID]string) // what is worth nothing, by its revision
	for range 3 {
		var again []*sealed
		pipe := p.client.Pipeline()
		answers := make([]*redis.Cmd, len(todo))
		for i, s := range todo {
			answers[i] = pipe.Eval(ctx, putScript, []string{p.deployment.bundle(s.ID)}, s.Revision, s.data, over[s.ID])
		}
		_, _ = pipe.Exec(ctx) // each has its own error
		for i, s := range todo {
			got, err := answer(answers[i], 3)
			if err != nil {
				return explain("write", p.deployment.bundle(s.ID), err)
			}
			was, err := p.keys.Open([]byte(got[2]), string(p.deployment), s.ID)
			if got[0] == "put" {
				p.wrote(s.ID, s.Revision, s.data)
			}
			switch {
			case got[0] == "put" && err == nil:
				s.before = was.Hosts()
			case got[0] == "put":
			case err == nil && was.Revision >= s.Revision:
				s.kept = true
			default:
				over[s.ID] = got[1]
				again = append(again, s)
			}
		}
		if todo = again; len(todo) == 0 {
			return nil
		}
	}
	return fmt.Errorf("write %s: what is there is not of this portal, and comes back", p.deployment.bundle(todo[0].ID))
}

// Lacking are those of the bundles that do not stand there as a portal wrote them, at
// the revisions that are named, or later: somebody else has written there, or Redis
// lost them alone. What this portal wrote itself, or found good, is not fetched until
// it is another.
func (p *Publisher) Lacking(ctx context.Context, changes ...Change) ([]Change, error) {
	var lacking []Change
	for some := range slices.Chunk(changes, batch) {
		pipe := p.client.Pipeline()
		answers := make([]*redis.Cmd, len(some))
		for i, c := range some {
			answers[i] = pipe.Eval(ctx, sumScript, []string{p.deployment.bundle(c.ID)})
		}
		_, _ = pipe.Exec(ctx) // each has its own error
		var unknown []Change
		for i, c := range some {
			got, err := answer(answers[i], 2)
			if err != nil {
				return nil, explain("look at", p.deployment.bundle(c.ID), err)
			}
			if !p.isGood(c, got[0], got[1]) {
				unknown = append(unknown, c)
			}
		}
		missed, err := p.open(ctx, unknown)
		if err != nil {
			return nil, err
		}
		lacking = append(lacking, missed...)
	}
	return lacking, nil
}

// isGood reports whether what stands there is what was written, or found good, before.
func (p *Publisher) isGood(c Change, revision, sum string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.good[c.ID]
	return ok && known.revision >= c.Revision && known.sum == sum && revision == revisionText(known.revision)
}

// wrote takes note of what stands there now.
func (p *Publisher) wrote(id bundle.ID, revision int64, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.good[id] = proven{revision, fmt.Sprintf("%x", sha1.Sum(data))}
}

// open fetches bundles, large ones alone, and returns those that are not there as a portal
// wrote them.
func (p *Publisher) open(ctx context.Context, some []Change) (lacking []Change, err error) {
	if len(some) == 0 {
		return nil, nil
	}
	pipe := p.client.Pipeline()
	most := largeBytes
	if len(some) == 1 {
		most = bundle.MaxBytes
	}
	answers := make([]*redis.Cmd, len(some))
	for i, c := range some {
		answers[i] = pipe.Eval(ctx, getScript, []string{p.deployment.bundle(c.ID)}, -1, most)
	}
	_, _ = pipe.Exec(ctx) // each has its own error
	for i, c := range some {
		got, err := answer(answers[i], 2)
		if err != nil {
			return nil, explain("read", p.deployment.bundle(c.ID), err)
		}
		switch {
		case got[0] == "large" && len(some) > 1:
			missed, err := p.open(ctx, some[i:i+1])
			if err != nil {
				return nil, err
			}
			lacking = append(lacking, missed...)
			continue
		case got[0] != "new" || len(got) < 3:
			lacking = append(lacking, c)
			continue
		}
		data := []byte(got[1])
		b, err := p.keys.Open(data, string(p.deployment), c.ID)
		if err != nil || b.Revision < c.Revision || got[2] != revisionText(b.Revision) {
			lacking = append(lacking, c) // it is written over
			continue
		}
		p.wrote(c.ID, b.Revision, data)
	}
	return lacking, nil
}

func (p *Publisher) putHosts(ctx context.Context, todo []*sealed) error {
	pipe := p.client.Pipeline()
	for _, s := range todo {
		if s.kept {
			continue
		}
		for _, host := range s.before {
			if !slices.Contains(s.hosts, host) {
				pipe.Eval(ctx, unclaimScript, []string{p.deployment.host(host)}, s.Name, s.Revision)
			}
		}
	}
	type claim struct {
		host   string
		by     *sealed
		answer *redis.Cmd
	}
	var claims []claim
	for _, s := range todo {
		if s.kept {
			continue
		}
		for _, host := range s.hosts {
			claims = append(claims, claim{host, s, pipe.Eval(ctx, putScript, []string{p.deployment.host(host)}, s.Revision, s.Name, "")})
		}
	}
	if pipe.Len() == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return explain("write", p.deployment.host("*"), err)
	}
	for _, c := range claims {
		got, err := answer(c.answer, 3)
		if err != nil {
			return explain("write", p.deployment.host(c.host), err)
		}
		if got[0] == "put" || got[2] == c.by.Name {
			continue
		}
		// Somebody had the host later, and so by now there is a later change of this
		// one; or the hint is wrong.
		other, err := p.stored(ctx, p.deployment.bundle(bundle.ID{Kind: bundle.VirtualCluster, Name: got[2]}))
		if err != nil {
			return err
		}
		if b, err := p.keys.Open(other.Data, string(p.deployment), bundle.ID{Kind: bundle.VirtualCluster, Name: got[2]}); err == nil && b.Claims(c.host) {
			continue
		}
		if err := p.client.Eval(ctx, putScript, []string{p.deployment.host(c.host)}, c.by.Revision, c.by.Name, got[1]).Err(); err != nil {
			return explain("write", p.deployment.host(c.host), err)
		}
	}
	return nil
}

// Announce tells the proxies which bundles are new.
func (p *Publisher) Announce(ctx context.Context, changes ...Change) error {
	for some := range slices.Chunk(changes, batch) {
		args := []any{keepEntries}
		for _, c := range some {
			args = append(args, 6, "kind", string(c.Kind), "name", c.Name, "revision", c.Revision)
		}
		if err := p.append(ctx, args); err != nil {
			return err
		}
	}
	return nil
}

func (p *Publisher) append(ctx context.Context, args []any) error {
	if err := p.client.Eval(ctx, announceScript, []string{p.deployment.changes()}, args...).Err(); err != nil {
		return explain("append to", p.deployment.changes(), err)
	}
	return nil
}

// ErrForgot is a Redis that lost what stood in it a moment ago.
var ErrForgot = errors.New("redis has lost what stood in it: everything is to be published again")

// SetHead is Advance by a portal that relies on nothing that was published before.
func (p *Publisher) SetHead(ctx context.Context, revision int64) error {
	return p.Advance(ctx, 0, Head{Revision: revision})
}

// Advance says that everything is put and announced as a head says, whose deployment is this
// one. A head that is higher already stays. From is up to where the portal relies on what was
// published before, as Head told it. If Redis has lost that meanwhile it is ErrForgot, and
// nothing was written: a head must not stand above what is not there.
func (p *Publisher) Advance(ctx context.Context, from int64, to Head) error {
	to.Deployment = p.deployment
	revision := to.Revision
	data, err := seal(p.signer, bundle.ForHead, to)
	if err != nil {
		return err
	}
	key, over := p.deployment.head(), ""
	for range 3 {
		got, err := answer(p.client.Eval(ctx, putScript, []string{key}, revision, data, over, from), 3)
		switch {
		case err != nil:
			return explain("write", key, err)
		case got[0] == "put" && got[1] == revisionText(revision) && got[2] == string(data):
			return nil // and announced, by whoever wrote it
		case got[0] == "put":
			return p.append(ctx, []any{keepEntries, 2, "head", data})
		}
		h, err := OpenHead(p.keys, p.deployment, []byte(got[2]))
		switch {
		case got[0] == "lost" && (err != nil || h.Revision < from):
			return explain("write", key, ErrForgot)
		case got[0] == "lost":
			from = 0 // it says less than it is
		case err == nil && h.Revision >= revision:
			return nil
		default:
			over = got[1]
		}
	}
	return fmt.Errorf("write %s: what is there is not of this portal, and comes back", key)
}

// Nodes are those whose records have not expired, those that are gone included.
func (p *Publisher) Nodes(ctx context.Context) ([]Node, error) {
	nodes, _, err := p.list(ctx)
	return nodes, err
}

// Expected are the nodes that serve, or presumably do: with those that Redis has lost and
// that have not had the time to tell it again. It knows of what [Publisher.Nodes] and
// [Publisher.Seen] have shown before, and so wants one of them to be asked every second.
func (p *Publisher) Expected(ctx context.Context) ([]Node, error) {
	nodes, presumed, err := p.list(ctx)
	nodes = slices.DeleteFunc(nodes, func(n Node) bool { return n.State == NodeGone })
	return append(nodes, presumed...), err
}

func (p *Publisher) list(ctx context.Context) (nodes, presumed []Node, err error) {
	asked := time.Now()
	if nodes, err = p.board.Nodes(ctx); err != nil {
		return nil, nil, err
	}
	return nodes, p.roster.note(asked, nodes), nil
}

// Seen is the highest head that a live node has seen, and the node: it has the portal's
// signature to show for it. Zero: none has one. So the portal learns how far the fleet was
// told when both Redis and the database have forgotten.
func (p *Publisher) Seen(ctx context.Context) (revision int64, node string, err error) {
	nodes, err := p.Nodes(ctx)
	if err != nil {
		return 0, "", err
	}
	for _, n := range nodes {
		h, err := OpenHead(p.keys, p.deployment, n.Head)
		if err == nil && h.Revision > revision { // else it is nobody's word
			revision, node = h.Revision, n.ID
		}
	}
	return revision, node, nil
}

// Send gives a command to the process that a node is. A node that cannot be reached
// hears of it when it can again.
func (p *Publisher) Send(ctx context.Context, c Command) error {
	c.Deployment = p.deployment
	if c.ID == "" {
		c.ID = rand.Text()
	}
	data, err := seal(p.signer, bundle.ForCommand, c)
	if err != nil {
		return err
	}
	return p.append(ctx, []any{keepEntries, 2, "command", data})
}
