package control

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// keepPrices reports what would change the price of something that may have been
// counted, so that a closed statement never changes: a price book that is in effect
// stays as it is, and a new one does not reach into a time that had prices. A store
// that is filled from files gets its past at once: nothing was counted in it.
func (w *write) keepPrices(ctx context.Context, objects []*resource.Written, beside *world) error {
	coming := make(map[resource.Key]bool)
	for _, o := range objects {
		coming[resource.KeyOf(o.Object)] = true
	}
	var books []*resource.PriceBook // in effect before this change
	asked := false
	for _, o := range objects {
		book, ok := o.Object.(*resource.PriceBook)
		if !ok || book.Spec.From.IsZero() {
			continue
		}
		if before, ok := beside.Lookup(resource.KeyOf(book)).(*resource.PriceBook); ok {
			same, err := samePrices(before, book)
			if err != nil {
				return err
			}
			if same {
				continue // other labels, say
			}
			if before.Effective(w.now) {
				o.Problem("spec", "is in effect since %s and stays as it is, for what was counted keeps its price: write another PriceBook of the same plan with a later from, which takes its place then", rfc3339(before.Spec.From))
				continue
			}
		}
		// A book that is in effect can outlive a cluster, so it is no reference to it.
		for i, price := range book.Spec.Entries {
			cluster := resource.Key{Kind: resource.KindUpstreamCluster, Name: price.Cluster}
			if price.Cluster != "" && !coming[cluster] && beside.Lookup(cluster) == nil {
				o.Problem(fmt.Sprintf("spec.entries[%d].cluster", i), "there is no UpstreamCluster %q", price.Cluster)
			}
		}
		if !book.Effective(w.now) {
			continue
		}
		if !asked {
			var err error
			if books, err = w.booksInEffect(ctx); err != nil {
				return err
			}
			asked = true
		}
		if other := repriced(book, books, w.now); other != nil {
			o.Problem("spec.from", "is in the past, when PriceBook %s was in effect: what was counted keeps its price; write a time to come", other.Metadata.Name)
		}
	}
	return nil
}

// repriced is a book whose prices another that begins in the past would take the
// place of; nil: none.
func repriced(book *resource.PriceBook, books []*resource.PriceBook, now time.Time) *resource.PriceBook {
	until := now // when the next one of the plan begins
	for _, b := range books {
		if b.Spec.Plan == book.Spec.Plan && b.Spec.From.After(book.Spec.From) && b.Spec.From.Before(until) {
			until = b.Spec.From
		}
	}
	for _, b := range books {
		switch b.Spec.Plan {
		case book.Spec.Plan:
			if !b.Spec.From.After(book.Spec.From) {
				return b
			}
		case "": // whose prices the plan had so far
			if b.Spec.From.Before(until) {
				return b
			}
		}
	}
	return nil
}

func (w *write) booksInEffect(ctx context.Context) (books []*resource.PriceBook, err error) {
	rows, err := w.tx.Objects(ctx, store.Query{Kind: resource.KindPriceBook})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		o, err := read(row)
		if err != nil {
			return nil, err
		}
		if b, ok := o.(*resource.PriceBook); ok && b.Effective(w.now) {
			books = append(books, b)
		}
	}
	return books, nil
}

// samePrices reports whether two price books say the same, in whatever time zone.
func samePrices(a, b *resource.PriceBook) (bool, error) {
	var texts [2][]byte
	for i, book := range []*resource.PriceBook{a, b} {
		plain := &resource.PriceBook{Spec: book.Spec}
		plain.Spec.From = plain.Spec.From.UTC()
		var err error
		if texts[i], err = resource.Marshal(plain); err != nil {
			return false, err
		}
	}
	return bytes.Equal(texts[0], texts[1]), nil
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
