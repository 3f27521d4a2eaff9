package control

import (
	"context"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// Mark says how far the fleet was told of a bundle.
type Mark struct {
	bundle.ID
	Revision  int64 // of its last change
	Published int64 // the last one that the fleet was told of; 0: none
	Deleted   bool
}

func markOf(b store.Bundle) Mark {
	return Mark{ID: bundle.ID{Kind: bundle.Kind(b.Kind), Name: b.Name}, Revision: b.Revision, Published: b.Published, Deleted: b.Deleted}
}

// Pending lists bundles that the fleet is yet to be told of, in the order of the
// changes. One that changed several times is there once.
func (c *Control) Pending(ctx context.Context, limit int) ([]Mark, error) {
	return c.marks(ctx, func(tx *store.Tx) ([]store.Bundle, error) { return tx.PendingBundles(ctx, limit) })
}

// All lists every bundle behind one, tombstones included, for when the fleet has
// to be told everything anew. It begins with the zero ID.
func (c *Control) All(ctx context.Context, after bundle.ID, limit int) ([]Mark, error) {
	return c.marks(ctx, func(tx *store.Tx) ([]store.Bundle, error) {
		return tx.Bundles(ctx, string(after.Kind), after.Name, limit)
	})
}

func (c *Control) marks(ctx context.Context, list func(*store.Tx) ([]store.Bundle, error)) (marks []Mark, err error) {
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		bundles, err := list(tx)
		marks = make([]Mark, len(bundles))
		for i, b := range bundles {
			marks[i] = markOf(b)
		}
		return err
	})
	return marks, err
}

// Published says that the fleet was told of bundles as they were at the revisions
// of the marks. What changed since stays pending.
func (c *Control) Published(ctx context.Context, marks ...Mark) error {
	return c.store.Note(ctx, func(tx *store.Tx) error {
		for _, m := range marks {
			if err := tx.BundlePublished(ctx, string(m.Kind), m.Name, m.Revision); err != nil {
				return err
			}
		}
		return nil
	})
}

// Compile reads a bundle with everything in it, as it is in one moment, of no deployment
// yet: that is whose it is published for, which the store does not know. A deleted
// one is a tombstone; one that never was is not found.
func (c *Control) Compile(ctx context.Context, id bundle.ID) (*bundle.Bundle, error) {
	var b *bundle.Bundle
	if !storable(string(id.Kind), id.Name) {
		return nil, &NotFound{Key: resource.Key{Kind: string(id.Kind), Name: id.Name}}
	}
	err := c.store.Read(ctx, func(tx *store.Tx) error {
		m, ok, err := tx.Bundle(ctx, string(id.Kind), id.Name)
		if err != nil {
			return err
		}
		key := resource.Key{Kind: string(id.Kind), Name: id.Name}
		if !ok {
			return &NotFound{Key: key}
		}
		b = &bundle.Bundle{ID: id, Revision: m.Revision, Deleted: m.Deleted}
		if m.Deleted {
			return nil
		}
		if id == bundle.Everywhere {
			rows, err := tx.Objects(ctx, store.Query{Kind: resource.KindPolicy, Everywhere: true})
			if err != nil {
				return err
			}
			return addObjects(b, rows)
		}
		row, ok, err := tx.Object(ctx, key)
		if err != nil {
			return err
		}
		if !ok {
			return &NotFound{Key: key}
		}
		rows := []store.Row{row}
		if id.Kind == bundle.VirtualCluster {
			more, err := tx.Union(ctx,
				store.Query{Kind: resource.KindTenant, Tenant: row.Tenant}, // a tenant is its own
				store.Query{Kind: resource.KindTopicGrant, Scope: row.Tenant},
				store.Query{Kind: resource.KindAliasTopic, Scope: id.Name},
				store.Query{Kind: resource.KindServiceAccount, Scope: id.Name},
				store.Query{Kind: resource.KindACL, Scope: id.Name},
				store.Query{Kind: resource.KindPolicy, Scope: id.Name},
			)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		if err := addObjects(b, rows); err != nil {
			return err
		}
		if id.Kind == bundle.VirtualCluster {
			return c.addVerifiers(ctx, tx, id.Name, b.Objects)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// addObjects puts what is stored into a bundle.
func addObjects(b *bundle.Bundle, rows []store.Row) error {
	for _, row := range rows {
		o, err := read(row)
		if err != nil {
			return err
		}
		b.Objects = append(b.Objects, o)
	}
	return nil
}

// Everywhere says at which revision the fleet was told of the policies of all virtual
// clusters last, 0: never; and whether there are any.
func (c *Control) Everywhere(ctx context.Context) (told int64, some bool, err error) {
	err = c.store.Read(ctx, func(tx *store.Tx) error {
		b, _, err := tx.Bundle(ctx, everywhere.kind, everywhere.name)
		if told = b.Published; err != nil || told == 0 {
			return err
		}
		n, err := tx.CountObjects(ctx, store.Query{Kind: resource.KindPolicy, Everywhere: true})
		some = n > 0
		return err
	})
	return told, some, err
}

// addVerifiers gives the accounts of a virtual cluster what their live secrets are
// verified by. Those that expired are left out: their salts may differ.
func (c *Control) addVerifiers(ctx context.Context, tx *store.Tx, virtualCluster string, objects []resource.Object) error {
	secrets, err := tx.Secrets(ctx, virtualCluster, "")
	if err != nil || len(secrets) == 0 {
		return err
	}
	accounts := make(map[string]*resource.ServiceAccount)
	for _, o := range objects {
		if a, ok := o.(*resource.ServiceAccount); ok {
			accounts[a.Metadata.Name] = a
		}
	}
	now := c.now()
	for _, s := range secrets {
		a := accounts[s.Account]
		if a == nil || a.Spec.Type != resource.Local || !live(s, now) {
			continue
		}
		for _, v := range s.Verifiers {
			v.ID, v.Expires = s.ID, s.ExpiresAt
			a.Spec.Verifiers = append(a.Spec.Verifiers, v)
		}
	}
	return nil
}
