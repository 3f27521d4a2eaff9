package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/testbed/postgres"
)

// fewTenants is how many there are where there are few: those whose clients are
// watched.
const fewTenants = 10

// tenantsEach is how many tenants are sent in one change.
const tenantsEach = 40

// planeSize is how a control plane does with so many tenants.
type planeSize struct {
	visible, applied               []time.Duration // changes
	first, deep, byLabel, byTenant []time.Duration // pages
}

// planeFigures are those of one database.
type planeFigures struct {
	database           string
	objects            int
	seeded, trailing   time.Duration // until the last is kept; then until it is published
	few, many          planeSize
	republished        time.Duration
	documents          int
	created, unchanged time.Duration // of the command line
	silence            float64       // cores
	resident           int64
}

// tenants measures a control plane with many tenants, on each database.
func (b *run) tenants(ctx context.Context) error {
	portal, err := build(ctx, b.dir, "tollgate.internal/services/portal/cmd/portal")
	if err != nil {
		return err
	}
	command, err := build(ctx, b.dir, "tollgate.internal/cmd/tollgate")
	if err != nil {
		return err
	}
	db, err := postgres.New()
	if err != nil {
		return err
	}
	b.onClose(db.Close)
	var all []*planeFigures
	for _, d := range [][2]string{
		{"SQLite", "sqlite:" + filepath.Join(b.dir, "tollgate.db")},
		{"PostgreSQL", db.URL("postgres")},
	} {
		own := len(b.closing)
		p, err := b.startPlane(ctx, d[0], portal, d[1])
		if err != nil {
			return fmt.Errorf("%s: %w", d[0], err)
		}
		b.Progress("%s: portal is process %d, profiles at %s/debug/pprof/", d[0], p.portal.process.PID(), p.portal.admin)
		f, err := b.plane(ctx, p, command)
		p.disconnect()
		if err := errors.Join(err, b.close(own)); err != nil {
			return fmt.Errorf("%s: %w", d[0], err)
		}
		all = append(all, f)
	}
	b.report.addPlanes(all, b.Tenants)
	return nil
}

func (b *run) plane(ctx context.Context, p *plane, command string) (*planeFigures, error) {
	f := &planeFigures{database: p.database, documents: b.Documents}
	t, err := newTenancy(b.address.Plaintext)
	if err != nil {
		return nil, err
	}
	few := min(fewTenants, b.Tenants/2)
	if _, err := p.apply(ctx, []resource.Object{upstreamObject(b.address.Plaintext)}); err != nil {
		return nil, err
	}
	if _, err := p.seed(ctx, t, 0, few); err != nil {
		return nil, err
	}
	for i := range few {
		path := fmt.Sprintf("/v1/virtual-clusters/%s/service-accounts/%s/secrets?wait=applied", virtualClusterOf(i), userName)
		if _, _, err := p.call(ctx, http.MethodPost, path, map[string]string{"password": userPassword}, nil); err != nil {
			return nil, err
		}
	}
	if err := p.connect(few); err != nil {
		return nil, err
	}
	b.Progress("%s: changes and pages with %d tenants", p.database, few)
	if err := p.measure(ctx, &f.few, few, b.Changes/2); err != nil {
		return nil, err
	}

	b.Progress("%s: seeding %d tenants", p.database, b.Tenants)
	began := time.Now()
	revision, err := p.seed(ctx, t, few, b.Tenants)
	if err != nil {
		return nil, err
	}
	f.seeded, f.objects = time.Since(began), (b.Tenants-few)*len(t)
	if err := p.published(ctx, revision); err != nil {
		return nil, err
	}
	f.trailing = time.Since(began) - f.seeded
	b.Progress("%s: %d objects in %v, published %v later", p.database, f.objects, f.seeded, f.trailing)
	if f.silence, err = busyCores(p.portal.process.PID(), func() (int64, error) {
		select {
		case <-time.After(5 * b.RoundTime):
			return 0, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}); err != nil {
		return nil, err
	}

	b.Progress("%s: changes and pages with %d tenants", p.database, b.Tenants)
	if err := p.measure(ctx, &f.many, b.Tenants, b.Changes); err != nil {
		return nil, err
	}
	if f.resident, err = residentBytes(p.portal.process.PID()); err != nil {
		return nil, err
	}
	b.Progress("%s: everything anew", p.database)
	if f.republished, err = p.republish(ctx); err != nil {
		return nil, err
	}
	b.Progress("%s: tollgate apply", p.database)
	f.created, f.unchanged, err = b.commandApplies(ctx, p, t, command)
	return f, err
}

// seed creates the tenants from one number to another.
func (p *plane) seed(ctx context.Context, t tenancy, from, to int) (revision int64, err error) {
	for ; from < to; from += tenantsEach {
		var objects []resource.Object
		for i := from; i < min(from+tenantsEach, to); i++ {
			objects = append(objects, t.of(i)...)
		}
		if revision, err = p.apply(ctx, objects); err != nil {
			return 0, err
		}
	}
	return revision, nil
}

// connect logs a client of each of the first tenants in at each node.
func (p *plane) connect(tenants int) error {
	for i := range tenants {
		at := make([]*conn, len(p.nodes))
		p.clients = append(p.clients, at)
		for n, node := range p.nodes {
			target := node.of(i)
			c, err := target.connect(target.Host, nil)
			if err != nil {
				return err
			}
			at[n] = c
			if sees, err := c.sees(aliasName); err != nil || !sees {
				return errors.Join(fmt.Errorf("%s: the client does not see its topic", target.Host), err)
			}
		}
	}
	return nil
}

func (p *plane) disconnect() {
	for _, at := range p.clients {
		for _, c := range at {
			if c != nil {
				c.Close()
			}
		}
	}
}

// sees reports whether the client may see a topic.
func (c *conn) sees(topic string) (bool, error) {
	c.SetDeadline(time.Now().Add(timeLimit))
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := roundTrip[*kmsg.MetadataResponse](c, req)
	if err != nil {
		return false, err
	}
	return len(resp.Topics) == 1 && resp.Topics[0].ErrorCode == 0, nil
}

// change allows or denies a tenant its topic, and returns how long it took until the
// clients on every node are answered so, and until the API said that it is applied.
func (p *plane) change(ctx context.Context, tenant int, allow bool) (visible, applied time.Duration, err error) {
	acl := &resource.ACL{
		Metadata: resource.Metadata{Name: "topic-" + aliasName, VirtualCluster: virtualClusterOf(tenant)},
		Spec: resource.ACLSpec{
			Principal: "User:" + userName, Host: "*", Operation: "ALL", Permission: "DENY",
			Resource: resource.ACLResource{Type: "topic", Name: aliasName, Pattern: resource.Literal},
		},
	}
	if allow {
		acl.Spec.Permission = "ALLOW"
	}
	text, err := resource.Marshal(acl)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	seen := make([]time.Duration, len(p.nodes))
	var g errgroup.Group
	for n, c := range p.clients[tenant] {
		g.Go(func() error {
			for time.Since(began) < timeLimit {
				sees, err := c.sees(aliasName)
				if err != nil {
					return fmt.Errorf("%s: %w", p.nodes[n].name, err)
				}
				if sees == allow {
					seen[n] = time.Since(began)
					return nil
				}
				time.Sleep(time.Millisecond) // between two looks
			}
			return fmt.Errorf("%s does not know of the change\n%s", p.nodes[n].name, p.nodes[n].tail())
		})
	}
	path := fmt.Sprintf("/v1/virtual-clusters/%s/acls/%s?wait=applied&timeout=30s", acl.Metadata.VirtualCluster, acl.Metadata.Name)
	took, everywhere, err := p.call(ctx, http.MethodPut, path, jsonText(text), nil)
	if err = errors.Join(err, g.Wait()); err == nil && !everywhere {
		err = errors.New("a change was not applied within 30 s")
	}
	return slices.Max(seen), took, err
}

// jsonText is sent as it is.
type jsonText []byte

func (t jsonText) MarshalJSON() ([]byte, error) { return t, nil }

// measure takes the figures that may depend on how many tenants there are.
func (p *plane) measure(ctx context.Context, s *planeSize, tenants, changes int) error {
	for i := range changes {
		tenant := i % len(p.clients)
		visible, applied, err := p.change(ctx, tenant, i/len(p.clients)%2 == 1)
		if err != nil {
			return err
		}
		s.visible, s.applied = append(s.visible, visible), append(s.applied, applied)
	}
	for i := range p.clients { // as it was
		if _, _, err := p.change(ctx, i, true); err != nil {
			return err
		}
	}
	type page struct {
		Items []struct{} `json:"items"`
		Next  string     `json:"next"`
	}
	read := func(into *[]time.Duration, query string, least int) (next string, err error) {
		var out page
		took, _, err := p.call(ctx, http.MethodGet, query, nil, &out)
		if err == nil && len(out.Items) < least {
			err = fmt.Errorf("GET %s: %d objects, not %d", query, len(out.Items), least)
		}
		if into != nil {
			*into = append(*into, took)
		}
		return out.Next, err
	}
	// Cursors all over the longest list there is.
	var cursors []string
	for after := ""; ; {
		query := "/v1/alias-topics?limit=1000"
		if after != "" {
			query += "&after=" + url.QueryEscape(after)
		}
		next, err := read(nil, query, 1)
		if err != nil {
			return err
		}
		if next == "" {
			break
		}
		cursors, after = append(cursors, next), next
	}
	cursors = cursors[len(cursors)/2:]
	for i := range max(changes/2, 1) {
		if _, err := read(&s.first, "/v1/alias-topics", 100); err != nil {
			return err
		}
		deep, least := "/v1/alias-topics", 100
		if len(cursors) > 0 {
			deep, least = deep+"?after="+url.QueryEscape(cursors[i%len(cursors)]), 1
		}
		if _, err := read(&s.deep, deep, least); err != nil {
			return err
		}
		tenant := i * 7919 % tenants
		if _, err := read(&s.byLabel, "/v1/tenants?labelSelector="+url.QueryEscape("cost-centre="+costCentreOf(tenant)), 1); err != nil {
			return err
		}
		if _, err := read(&s.byTenant, "/v1/alias-topics?tenant=t"+numberOf(tenant), aliasesEach); err != nil {
			return err
		}
	}
	return nil
}

// republish empties Redis, and returns how long it took until everything is back.
func (p *plane) republish(ctx context.Context) (time.Duration, error) {
	head, err := p.board.Head(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := p.notices.flush(ctx); err != nil {
		return 0, err
	}
	err = p.published(ctx, head.Revision)
	return time.Since(began), err
}

// commandApplies has the command line apply documents of tenants that are new, and then
// of the same again.
func (b *run) commandApplies(ctx context.Context, p *plane, t tenancy, command string) (created, unchanged time.Duration, err error) {
	var text strings.Builder
	n := 0
	for tenant := b.Tenants; n < b.Documents; tenant++ {
		for _, o := range t.of(tenant) {
			if n++; n > b.Documents {
				break
			}
			document, err := resource.Marshal(o)
			if err != nil {
				return 0, 0, err
			}
			fmt.Fprintf(&text, "---\n%s\n", document)
		}
	}
	dir, err := os.MkdirTemp(b.dir, "apply-")
	if err != nil {
		return 0, 0, err
	}
	file := filepath.Join(dir, "tenants.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return 0, 0, err
	}
	apply := func() (time.Duration, error) {
		cmd := exec.CommandContext(ctx, command, "apply", "-f", file)
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "TOLLGATE_SERVER=" + p.api, "TOLLGATE_TOKEN=" + p.token}
		began := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("tollgate apply: %w\n%.2000s", err, out)
		}
		return time.Since(began), nil
	}
	if created, err = apply(); err != nil {
		return 0, 0, err
	}
	unchanged, err = apply()
	return created, unchanged, err
}
