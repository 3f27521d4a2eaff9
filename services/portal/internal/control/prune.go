package control

import (
	"context"
	"slices"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// Prune selects what is deleted because it is not among the objects that are
// applied.
type Prune struct {
	Labels Selector
	Kinds  []string // only objects of these; empty: of all
}

// ApplyAndPrune is Apply, and then deletes what is selected and was not among the
// objects, all in one change. The results of what was deleted stand at the end.
func (c *Control) ApplyAndPrune(ctx context.Context, actor Actor, objects []*resource.Written, prune Prune, options Options) ([]Result, error) {
	if len(prune.Labels.requirements) == 0 {
		return nil, invalid("prune", "needs a condition on labels: without one everything would be deleted")
	}
	var results []Result
	err := c.write(ctx, actor, options.DryRun, func(w *write) (err error) {
		// What goes gives up what only one can have; whether somebody needs it shows
		// when the rest is in its place.
		gone, err := w.prune(ctx, objects, prune, options)
		if err != nil {
			return err
		}
		if results, err = w.put(ctx, objects, options); err != nil {
			return err
		}
		for _, r := range gone {
			if err := w.checkGone(ctx, r.Before); err != nil {
				return err
			}
		}
		results = append(results, gone...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if options.DryRun {
		dry(results)
	}
	return results, nil
}

func (w *write) prune(ctx context.Context, objects []*resource.Written, prune Prune, options Options) (results []Result, err error) {
	stay := make(map[resource.Key]bool, len(objects))
	for _, o := range objects {
		stay[resource.KeyOf(o.Object)] = true
	}
	var gone []resource.Key
	for _, kind := range resource.Kinds {
		if len(prune.Kinds) > 0 && !slices.Contains(prune.Kinds, kind.Name) {
			continue
		}
		rows, err := w.tx.Objects(ctx, store.Query{Kind: kind.Name, Tenant: options.Tenant, Labels: prune.Labels.requirements})
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if stay[row.Key] {
				continue
			}
			if options.Tenant != "" { // what a tenant may not delete is none of what it prunes
				o, err := read(row)
				if err != nil {
					return nil, err
				}
				if ownedBy(o, options.Tenant) != nil {
					continue
				}
			}
			gone = append(gone, row.Key)
		}
	}
	// What refers to others goes before them.
	slices.SortFunc(gone, func(a, b resource.Key) int { return b.Compare(a) })
	for _, key := range gone {
		result, err := w.take(ctx, key, Options{Tenant: options.Tenant})
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// dry takes back what only a change that was kept would have.
func dry(results []Result) {
	for i := range results {
		before := int64(0)
		if results[i].Before != nil {
			before = results[i].Before.Meta().Revision
		}
		results[i].Revision, results[i].Object.Meta().Revision = before, before
	}
}
