package control

import (
	"sync"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/portal/internal/store"
)

// Control changes and reads the resources of one store. It is safe for concurrent
// use, and so are several of them on one PostgreSQL.
type Control struct {
	store *store.Store
	now   func() time.Time

	limits Limits

	reserved []Topic // set before anything is changed

	mu      sync.Mutex // guards changed
	changed chan struct{}
}

// New makes a Control of an open store. Now tells the time; nil: the clock.
func New(s *store.Store, now func() time.Time) *Control {
	if now == nil {
		now = time.Now
	}
	return &Control{store: s, now: now, limits: DefaultLimits(), changed: make(chan struct{})}
}

// Identity is the name of the database, which its copies share.
func (c *Control) Identity() string { return c.store.Identity() }

// RevisionKey is a secret that all portals of the store share, to make of revisions
// what tenants read in their place.
func (c *Control) RevisionKey() []byte { return c.store.RevisionKey() }

// Actor is who asks for a change, for the audit log.
type Actor struct {
	Name    string // of a token or a user
	Tenant  string // whose it is; "": of those who run the gateway
	Kind    string // token, user, kafka, system
	Address string // where the request came from
	Request string // its id
}

// Options of a change. The zero Options are those of a plain one.
type Options struct {
	DryRun     bool   // do everything but keep it
	IfRevision int64  // only if the object is at this revision; 0: metadata.revision of what was sent, or any
	IfAbsent   bool   // only if there is no such object
	Tenant     string // only what is this tenant's: all else is not found
}

// Change is what became of an object.
type Change string

// The changes.
const (
	Created   Change = "created"
	Replaced  Change = "replaced"
	Unchanged Change = "unchanged"
	Deleted   Change = "deleted"
)

// Result is what a change did to one object.
type Result struct {
	Stored                 // as it is now; as it was, if it was deleted
	Before resource.Object // nil: it was created
	Change Change
	// Revision is that of the change; of the object as it stands, if there was none;
	// 0 in a dry run that would create it.
	Revision int64
}

// Stored is an object with what is known about it. Its metadata has its revision.
type Stored struct {
	Object resource.Object
	Status Status
	Tenant string // whose it is; "": nobody's
}

// Status is what the control plane says of an object.
type Status struct {
	Created time.Time `json:"created,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
	Secrets []Secret  `json:"secrets,omitempty"` // of a ServiceAccount
}
