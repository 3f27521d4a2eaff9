// Package fleet brings a node what it serves from the control plane: virtual
// clusters when their first client comes, upstream clusters when a virtual cluster
// needs them, and every change of what is loaded.
package fleet

import (
	"context"
	"errors"

	"tollgate.internal/pkg/bundle"
	"tollgate.internal/pkg/resource"
)

// A Source knows the virtual clusters and upstream clusters there are. The gateway
// asks it, and it answers by calling the [Applier] that Run was given: with PutPolicies, Put
// and PutUpstream before Find, Load and Upstream return. Those three come from many
// goroutines at once, never twice at once for the same name, and never from within
// a call of the Applier.
type Source interface {
	// Find loads the virtual cluster that claims host, if there is one. Host is
	// what the documents say, in lower case: spec.host, which is a single label, or
	// one of spec.customHosts; the node's domains are cut off. A host that nobody
	// claims is no error: the gateway looks whether it has the host afterwards. An
	// error says that this could not be found out, or that what was found cannot be
	// served; the client is then let try again soon.
	Find(ctx context.Context, host string) error
	// Load is Find by the name of a virtual cluster.
	Load(ctx context.Context, virtualCluster string) error
	// Upstream loads an upstream cluster. One that is not there (yet) is no error;
	// the gateway asks again every second for as long as it needs it.
	Upstream(ctx context.Context, name string) error
	// Run follows the changes of what is loaded until ctx ends. The gateway calls it
	// once. Run calls ready when the functions above can be called, and, if it is to
	// load everything beforehand, when that is done: the gateway lets clients in from
	// then on. It takes seconds at most, also while there is nobody to ask.
	Run(ctx context.Context, into Applier, ready func()) error
	// Problem is why the node serves by what it last knew, in words for operators;
	// nil: it knows of every change.
	Problem() error
}

// An Applier is the gateway: it puts documents into service under the live sessions.
// Its methods are safe for concurrent use, return when the change is in effect, which
// takes milliseconds, and neither wait for the source nor for brokers. What they return
// is about this document alone, and nothing was changed then, unless it is [ErrNarrowed].
//
// A revision that was applied is never followed by a lower one of the same name: that
// is [ErrOlder]. The same one again changes nothing.
type Applier interface {
	// Put serves a virtual cluster. The set holds its Tenant, VirtualCluster,
	// TopicGrants (all of the tenant's), AliasTopics, ServiceAccounts and ACLs, and is
	// not changed any more. Upstream clusters come by PutUpstream, before or after:
	// those that are missing are asked for by Source.Upstream.
	// It is an error while nobody has said what the policies of all virtual clusters are.
	Put(name string, set *resource.Set, revision int64) error
	// PutPolicies says what they are: all there are, perhaps none. At revision 0 there never
	// were any.
	PutPolicies(policies []*resource.Policy, revision int64) error
	// Remove ends a virtual cluster and its sessions.
	Remove(name string, revision int64) error
	// PutUpstream says how an upstream cluster is reached from now on.
	PutUpstream(u *resource.UpstreamCluster, revision int64) error
	// RemoveUpstream forgets an upstream cluster as soon as no virtual cluster that is
	// loaded uses it.
	RemoveUpstream(name string, revision int64) error
	// Loaded are the revisions of what is served, by name. A virtual cluster that had
	// no client for long is unloaded, and is missing here then; its documents come
	// by Find again.
	Loaded() (virtualClusters, upstreams map[string]int64)
	// Revision is that of one virtual cluster or upstream cluster, as Loaded has it, if it
	// is served; and that of the policies of all virtual clusters, if they are known.
	Revision(id bundle.ID) (revision int64, served bool)
	// Announced says that a virtual cluster which is not loaded has changed. It may be
	// new: what was unknown a moment ago is asked for again.
	Announced()
}

// ErrNarrowed is what an Applier answers to a change that it cannot put into service as
// it is, of something that is served: what the change takes away is taken away, and what
// it gives is given as far as can be. The revision stays that of before.
var ErrNarrowed = errors.New("what it takes away is taken away, but it cannot be served as it is")

// ErrOlder is what an Applier answers to a revision that is lower than the one it has.
var ErrOlder = errors.New("older than what was applied before")
