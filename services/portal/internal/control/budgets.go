package control

import (
	"context"
	"fmt"

	"tollgate.internal/pkg/resource"
)

// ownBudget says in a budget whose it is, and keeps a tenant from those that are not
// its own. Those who run the gateway own what they wrote last, unless they say that it
// is the tenant's: so a tenant that has a name first does not keep it.
func (w *write) ownBudget(ctx context.Context, o *resource.Written, options Options) error {
	b, ok := o.Object.(*resource.Budget)
	if !ok {
		return nil
	}
	if options.Tenant == "" {
		if b.Spec.Owner == "" {
			b.Spec.Owner = resource.OwnerOperator
		}
		return nil
	}
	key := resource.KeyOf(b)
	if !storableKey(key) {
		return nil // which is reported
	}
	row, exists, err := w.tx.Object(ctx, key)
	if err != nil {
		return err
	}
	if exists {
		before, err := read(row)
		if err != nil {
			return err
		}
		if err := ownedBy(before, options.Tenant); err != nil {
			return err
		}
	}
	switch b.Spec.Owner {
	case "":
		b.Spec.Owner = resource.OwnerTenant
	case resource.OwnerOperator:
		o.Problem("spec.owner", "is for those who run the gateway: leave it out, and the budget is the tenant's")
	}
	return nil
}

// ownedBy says that a tenant may not change an object, of those that it may write
// otherwise. What does not say whose it is belongs to those who run the gateway.
func ownedBy(o resource.Object, tenant string) error {
	if b, ok := o.(*resource.Budget); ok && tenant != "" && b.Spec.Owner != resource.OwnerTenant {
		return &Forbidden{fmt.Sprintf("%s was written by those who run the gateway, who alone change it: write a Budget of another name", resource.KeyOf(o))}
	}
	return nil
}
