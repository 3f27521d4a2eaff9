package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// Put creates or replaces one object.
func (c *Control) Put(ctx context.Context, actor Actor, object *resource.Written, options Options) (Result, error) {
	results, err := c.Apply(ctx, actor, []*resource.Written{object}, options)
	if err != nil {
		return Result{}, err
	}
	return results[0], nil
}

// Apply creates or replaces objects, all of them or none. They may stand in any
// order and refer to each other. The results are in the order of the objects.
// Problems that were found when the objects were parsed count as its own.
func (c *Control) Apply(ctx context.Context, actor Actor, objects []*resource.Written, options Options) ([]Result, error) {
	var results []Result
	err := c.write(ctx, actor, options.DryRun, func(w *write) (err error) {
		results, err = w.put(ctx, objects, options)
		return err
	})
	if err != nil {
		return nil, err
	}
	if options.DryRun {
		dry(results)
	}
	return results, nil
}

// Delete removes an object that no other needs.
func (c *Control) Delete(ctx context.Context, actor Actor, key resource.Key, options Options) (Result, error) {
	var result Result
	err := c.write(ctx, actor, options.DryRun, func(w *write) (err error) {
		result, err = w.remove(ctx, key, options)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	if options.DryRun {
		result.Revision = result.Before.Meta().Revision
	}
	return result, nil
}

// write is one change on its way.
type write struct {
	tx     *store.Tx
	limits Limits
	actor  Actor
	now    time.Time
	some   bool // whether there is a change at all

	reserved []Topic

	owners  map[string]string // tenants of virtual clusters, while objects are kept
	bundles map[mark]bool     // what the fleet is to be told, and whether it is deleted
}

// mark is a bundle, or all bundles of virtual clusters of a tenant.
type mark struct{ kind, name, tenant string }

var everywhere = mark{kind: string(bundle.Everywhere.Kind), name: bundle.Everywhere.Name}

// write runs change in a transaction and lets those know that wait for changes.
func (c *Control) write(ctx context.Context, actor Actor, dryRun bool, change func(*write) error) error {
	kept := false
	err := c.store.Write(ctx, func(tx *store.Tx) error {
		w := &write{tx: tx, limits: c.limits, actor: actor, reserved: c.reserved, now: c.now().UTC().Truncate(time.Microsecond), bundles: make(map[mark]bool)}
		if err := change(w); err != nil {
			return err
		}
		if err := w.markBundles(ctx); err != nil {
			return err
		}
		if kept = w.some && !dryRun; !kept {
			return store.ErrDiscard
		}
		return nil
	})
	if err != nil {
		return err
	}
	if kept {
		c.announce()
	}
	return nil
}

// put validates and stores objects.
func (w *write) put(ctx context.Context, objects []*resource.Written, options Options) ([]Result, error) {
	beside := newWorld(ctx, w.tx)
	if err := w.admit(ctx, objects, options); err != nil {
		return nil, err
	}
	for _, o := range objects {
		if err := w.ownBudget(ctx, o, options); err != nil {
			return nil, err
		}
		if err := w.giveSlots(ctx, o); err != nil {
			return nil, err
		}
	}
	resource.Validate(objects, beside, w.now)
	if err := w.coverAliases(ctx, objects, beside); err != nil {
		return nil, err
	}
	if err := w.keepPrices(ctx, objects, beside); err != nil {
		return nil, err
	}
	for _, o := range objects {
		checkText(o)
	}
	if beside.trouble != nil {
		return nil, beside.trouble
	}
	var problems *Invalid
	if problems = problemsOf(objects); problems != nil {
		return nil, problems
	}

	// First everything is given up, then everything taken: so two objects of one
	// change may swap what only one can have.
	puts := make([]*put, len(objects))
	for i, o := range objects {
		p, err := w.prepare(ctx, o, options)
		if err != nil {
			return nil, err
		}
		puts[i] = p
	}
	for _, p := range puts {
		if p.result.Change == Replaced {
			if err := w.tx.ReleaseClaims(ctx, p.row.Key); err != nil {
				return nil, err
			}
		}
	}
	ordered := slices.SortedStableFunc(slices.Values(puts), func(a, b *put) int { return a.row.Key.Compare(b.row.Key) })
	w.owners = make(map[string]string)
	for _, p := range ordered {
		if err := w.keep(ctx, p); err != nil {
			return nil, err
		}
	}
	if err := w.bound(ctx, ordered); err != nil {
		return nil, err
	}
	after := newWorld(ctx, w.tx)
	for _, p := range ordered {
		if err := w.lookAround(ctx, p, after); err != nil {
			return nil, err
		}
	}
	if problems = problemsOf(objects); problems != nil {
		return nil, problems
	}
	results := make([]Result, len(puts))
	for i, p := range puts {
		if p.result.Object.Kind() == resource.KindServiceAccount {
			if err := w.addSecrets(ctx, &p.result.Stored); err != nil {
				return nil, err
			}
		}
		results[i] = p.result
	}
	return results, nil
}

// put is one object on its way.
type put struct {
	written *resource.Written
	row     store.Row // what is to be stored
	before  store.Row
	result  Result
}

// admit keeps a tenant within what is its own.
func (w *write) admit(ctx context.Context, objects []*resource.Written, options Options) error {
	if options.Tenant == "" {
		return nil
	}
	for _, o := range objects {
		owner, err := w.owner(ctx, o.Object)
		if err != nil {
			return err
		}
		if owner != options.Tenant {
			return &NotFound{Key: scopeKey(resource.KeyOf(o.Object))}
		}
	}
	return nil
}

// scopeKey is what an object is within, or itself: whose absence is to be told.
func scopeKey(key resource.Key) resource.Key {
	if kind, _ := resource.KindOf(key.Kind); kind.Scope != "" && key.Scope != "" {
		return resource.Key{Kind: kind.Scope, Name: key.Scope}
	}
	return key
}

// owner is the tenant that an object belongs to.
func (w *write) owner(ctx context.Context, o resource.Object) (string, error) {
	switch o.Kind() {
	case resource.KindTenant:
		return o.Meta().Name, nil
	case resource.KindUpstreamCluster, resource.KindPriceBook:
		return "", nil
	}
	if vc := o.Meta().VirtualCluster; vc != "" {
		row, _, err := w.tx.Object(ctx, resource.Key{Kind: resource.KindVirtualCluster, Name: vc})
		return row.Tenant, err
	}
	if kind, _ := resource.KindOf(o.Kind()); kind.Everywhere() {
		return "", nil // whatever else it says
	}
	return o.Meta().Tenant, nil
}

// prepare finds out what a valid object changes.
func (w *write) prepare(ctx context.Context, o *resource.Written, options Options) (*put, error) {
	p := &put{written: o}
	key := resource.KeyOf(o.Object)
	before, exists, err := w.tx.Object(ctx, key)
	if err != nil {
		return nil, err
	}
	want := options.IfRevision
	if want == 0 {
		want = o.Object.Meta().Revision
	}
	switch {
	case options.IfAbsent && exists:
		return nil, &Exists{Key: key, Revision: before.Revision}
	case want > 0 && want != before.Revision:
		return nil, &Conflict{Key: key, Want: want, Have: before.Revision}
	}
	object := resource.Clone(o.Object)
	object.Meta().Source = resource.Source{}
	object.Meta().Revision = 0
	document, err := resource.Marshal(object)
	if err != nil {
		return nil, err
	}
	p.row = store.Row{
		Key: key, Labels: object.Meta().Labels, Revision: w.tx.Revision, Created: w.tx.Revision,
		CreatedAt: w.now, ChangedAt: w.now, Document: string(document),
	}
	p.result = Result{Change: Created, Revision: w.tx.Revision}
	if exists {
		p.before = before
		if p.result.Before, err = read(before); err != nil {
			return nil, err
		}
		p.result.Change = Replaced
		p.row.Created, p.row.CreatedAt = before.Created, before.CreatedAt
		if before.Document == p.row.Document {
			p.result.Change, p.result.Revision = Unchanged, before.Revision
			p.row.Revision, p.row.ChangedAt = before.Revision, before.ChangedAt
		}
	}
	object.Meta().Revision = p.row.Revision
	p.result.Stored = Stored{Object: object, Status: Status{Created: p.row.CreatedAt, Changed: p.row.ChangedAt}, Tenant: before.Tenant}
	return p, nil
}

// keep stores an object that is changed.
func (w *write) keep(ctx context.Context, p *put) (err error) {
	if p.result.Change == Unchanged {
		return nil
	}
	o, key := p.result.Object, p.row.Key
	// What is within a virtual cluster comes behind it: many ask for the same one.
	vc := o.Meta().VirtualCluster
	if tenant, known := w.owners[vc]; known {
		p.row.Tenant = tenant
	} else if p.row.Tenant, err = w.owner(ctx, o); err != nil {
		return err
	}
	if vc != "" {
		w.owners[vc] = p.row.Tenant
	}
	p.result.Tenant = p.row.Tenant
	if err := w.tx.PutObject(ctx, p.row); err != nil {
		return err
	}
	for _, claim := range resource.Claims(o) {
		if err := w.tx.PutClaim(ctx, storeClaim(claim), key); err != nil {
			return err // validation looked whether it is taken
		}
	}
	dependencies := resource.Dependencies(o)
	references := make([]store.Reference, len(dependencies))
	for i, d := range dependencies {
		references[i] = store.Reference{Field: d.Field, To: d.On}
	}
	if err := w.tx.PutReferences(ctx, key, references); err != nil {
		return err
	}
	w.touch(o, false)
	return w.audit(ctx, string(actionOf[p.result.Change]), key, p.row.Tenant, "", p.before.Document, p.row.Document)
}

var actionOf = map[Change]Action{Created: ActionCreate, Replaced: ActionReplace, Deleted: ActionDelete}

// touch says which bundles an object is part of.
func (w *write) touch(o resource.Object, deleted bool) {
	w.some = true
	m := o.Meta()
	switch o.Kind() {
	case resource.KindUpstreamCluster, resource.KindVirtualCluster:
		w.bundles[mark{kind: o.Kind(), name: m.Name}] = deleted
	case resource.KindTenant:
		w.bundles[mark{kind: resource.KindVirtualCluster, tenant: m.Name}] = false
	case resource.KindTopicGrant:
		w.bundles[mark{kind: resource.KindVirtualCluster, tenant: m.Tenant}] = false
	case resource.KindPriceBook, resource.KindBudget: // which are none of the proxies' business
	default:
		if m.VirtualCluster == "" {
			w.bundles[everywhere] = false // which is there without anything in it, too
			return
		}
		w.bundles[mark{kind: resource.KindVirtualCluster, name: m.VirtualCluster}] = false
	}
}

func (w *write) markBundles(ctx context.Context) error {
	for m, deleted := range w.bundles {
		var err error
		if m.tenant != "" {
			err = w.tx.MarkBundlesOf(ctx, m.kind, m.tenant)
		} else {
			err = w.tx.MarkBundle(ctx, m.kind, m.name, deleted)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// remove deletes an object.
func (w *write) remove(ctx context.Context, key resource.Key, options Options) (Result, error) {
	result, err := w.take(ctx, key, options)
	if err == nil {
		err = w.checkGone(ctx, result.Before)
	}
	return result, err
}

// take deletes an object, whoever needs it: that is for checkGone, once everything
// else of the change is done.
func (w *write) take(ctx context.Context, key resource.Key, options Options) (Result, error) {
	if !storableKey(key) {
		return Result{}, &NotFound{Key: key}
	}
	row, exists, err := w.tx.Object(ctx, key)
	if err != nil {
		return Result{}, err
	}
	switch {
	case !exists || options.Tenant != "" && row.Tenant != options.Tenant:
		return Result{}, &NotFound{Key: key}
	}
	o, err := read(row)
	if err != nil {
		return Result{}, err
	}
	if err := ownedBy(o, options.Tenant); err != nil {
		return Result{}, err
	}
	if options.IfRevision > 0 && options.IfRevision != row.Revision {
		return Result{}, &Conflict{Key: key, Want: options.IfRevision, Have: row.Revision}
	}
	if b, ok := o.(*resource.PriceBook); ok && b.Effective(w.now) {
		return Result{}, refused("%s is in effect since %s and stays, for what was counted keeps its price: to pay otherwise, write another PriceBook of the same plan with a later from, which takes its place then", key, rfc3339(b.Spec.From))
	}
	if err := w.tx.DeleteObject(ctx, key); err != nil {
		return Result{}, err
	}
	detail, n := "%d secrets", int64(0)
	switch key.Kind {
	case resource.KindServiceAccount:
		n, err = w.tx.DeleteSecrets(ctx, key.Scope, key.Name, "")
	case resource.KindTenant:
		detail = "%d tokens"
		if n, err = w.tx.RevokeTokensOf(ctx, key.Name, w.now); err == nil {
			err = w.tx.DeleteGrantRequests(ctx, key.Name) // whoever has the name next did not ask for these
		}
	}
	if err != nil {
		return Result{}, err
	}
	if detail = fmt.Sprintf("with "+detail, n); n == 0 {
		detail = ""
	}
	w.touch(o, true)
	if err := w.audit(ctx, string(ActionDelete), key, row.Tenant, detail, row.Document, ""); err != nil {
		return Result{}, err
	}
	return Result{
		Stored: Stored{Object: o, Status: Status{Created: row.CreatedAt, Changed: row.ChangedAt}, Tenant: row.Tenant},
		Before: o, Change: Deleted, Revision: w.tx.Revision,
	}, nil
}

// checkGone reports who needs an object that was deleted.
func (w *write) checkGone(ctx context.Context, o resource.Object) error {
	key := resource.KeyOf(o)
	by, total, err := w.tx.ReferencedBy(ctx, key, named)
	if err != nil {
		return err
	}
	if g, ok := o.(*resource.TopicGrant); ok && total == 0 {
		if by, err = w.uncovered(ctx, g); err != nil {
			return err
		}
		total, by = int64(len(by)), by[:min(len(by), named)]
	}
	if total > 0 {
		return &Referenced{Key: key, By: by, Total: total}
	}
	return nil
}

// named is how many objects a refusal names.
const named = 20

// problemsOf gathers what was reported for objects, which may share their list.
func problemsOf(objects []*resource.Written) *Invalid {
	var lists []*resource.Problems
	var all resource.Problems
	for _, o := range objects {
		if !slices.Contains(lists, o.Problems) {
			lists = append(lists, o.Problems)
			all = append(all, *o.Problems...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	all.Sort()
	return &Invalid{all}
}
