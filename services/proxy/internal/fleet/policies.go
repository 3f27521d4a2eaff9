package fleet

import (
	"context"
	"errors"
	"fmt"

	"tollgate.internal/pkg/bundle"
)

// The policies of all virtual clusters come in a bundle of their own ([bundle.Everywhere]).
// Each head says of which revision they are, 0 where there never were any; so a node knows
// what it lacks whoever has taken it from Redis, and brings in no virtual cluster without.
//
//	unknown --there never were any, or they are in service--> ruled
//	   '<------ a head names a later revision ---------------'
//
// Virtual clusters that are served already go on by the policies of before, and the node
// does not say that it has applied the later ones.

// ruled reports whether the policies of all virtual clusters are in service that the heads
// have named.
func (r *Redis) ruled() bool {
	select {
	case <-r.running:
	default:
		return false
	}
	have, known := r.into.Revision(bundle.Everywhere)
	r.mu.Lock()
	defer r.mu.Unlock()
	return known && have >= r.heads.policies
}

// hadNone reports whether it is known that there were never any: some head says so, and
// none says otherwise.
func (r *Redis) hadNone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heads.highest > 0 && r.heads.policies == 0
}

// rule brings what is missing to be ruled.
func (r *Redis) rule(ctx context.Context) error {
	if r.ruled() {
		return nil
	}
	if err := r.load(ctx, bundle.Everywhere, ""); err != nil {
		return err
	}
	if r.ruled() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heads.highest == 0 {
		return errNoHead
	}
	return fmt.Errorf("the policies of all virtual clusters, of revision %d, are not there", r.heads.policies)
}

var errNoHead = errors.New("the portal has published nothing yet, as far as this node knows, and so not which policies there are of all virtual clusters")
