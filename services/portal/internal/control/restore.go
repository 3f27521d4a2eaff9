package control

import (
	"context"
	"fmt"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// restoreGap is how far above what the fleet was told of a restored database goes on:
// above what nodes hold that are away, too.
const restoreGap = 1_000_000

// Restored has a database that was restored from an old copy go on above a revision that
// the fleet was told of, with everything it has as its news. Proxies take it then. What
// was changed behind the copy is forgotten, so that somebody has to decide this. It
// returns the revision that the database goes on from; 0: it has passed the other one,
// and nothing was done.
func (c *Control) Restored(ctx context.Context, actor Actor, told int64) (revision int64, err error) {
	err = c.write(ctx, actor, false, func(w *write) error {
		revision = 0 // of a run before
		before := w.tx.Revision - 1
		if before >= told {
			return store.ErrDiscard
		}
		if err := w.tx.Raise(ctx, told+restoreGap); err != nil {
			return err
		}
		// Behind the copy there may have been policies of all virtual clusters: nodes that have
		// them and nodes that are new must agree that there are none.
		if err := w.tx.MarkBundle(ctx, everywhere.kind, everywhere.name, false); err != nil {
			return err
		}
		n, err := w.tx.MarkAllBundles(ctx)
		if err != nil {
			return err
		}
		revision = w.tx.Revision
		return w.audit(ctx, string(ActionRestore), resource.Key{Kind: "Database", Name: "portal"}, "",
			fmt.Sprintf("restored as of revision %d, while the fleet was told of %d: goes on from %d, with %d bundles", before, told, revision, n), "", "")
	})
	return revision, err
}
