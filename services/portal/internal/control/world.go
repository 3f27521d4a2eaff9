package control

import (
	"context"
	"fmt"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// world is what is stored, as validation asks for it. It keeps ctx and the first
// trouble because resource.World has room for neither; it lives no longer than its
// transaction.
type world struct {
	ctx     context.Context
	tx      *store.Tx
	trouble error
	known   map[resource.Key]resource.Object // nil: there is none
}

func newWorld(ctx context.Context, tx *store.Tx) *world {
	return &world{ctx: ctx, tx: tx, known: make(map[resource.Key]resource.Object)}
}

// Lookup finds an object.
func (w *world) Lookup(key resource.Key) resource.Object {
	if o, ok := w.known[key]; ok {
		return o
	}
	if !storableKey(key) {
		return nil
	}
	var o resource.Object
	row, ok, err := w.tx.Object(w.ctx, key)
	if err == nil && ok {
		o, err = read(row)
	}
	w.note(err)
	if err != nil {
		return nil
	}
	w.known[key] = o
	return o
}

// Holder finds who has a claim.
func (w *world) Holder(claim resource.Claim) (resource.Key, bool) {
	if !storable(claim.Scope, claim.Value) {
		return resource.Key{}, false
	}
	key, taken, err := w.tx.Holder(w.ctx, storeClaim(claim))
	w.note(err)
	return key, taken
}

func (w *world) note(err error) {
	if w.trouble == nil {
		w.trouble = err
	}
}

func storeClaim(c resource.Claim) store.Claim {
	return store.Claim{Space: c.What, Scope: c.Scope, Value: c.Value}
}

// read is a stored object with its revision.
func read(row store.Row) (resource.Object, error) {
	o, err := resource.Unmarshal([]byte(row.Document))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", row.Key, err)
	}
	o.Meta().Revision = row.Revision
	return o, nil
}

// written is a stored object as if somebody sent it again, to be validated again.
func written(o resource.Object, problems *resource.Problems) ([]*resource.Written, error) {
	text, err := resource.Marshal(o)
	if err != nil {
		return nil, err
	}
	return resource.Parse(text, problems), nil
}
