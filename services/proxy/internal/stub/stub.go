// Package stub keeps the hidden topics that let home count offsets of topics that
// live on other clusters (PROTOCOL.md §B4-S1).
//
// A coordinator takes commits only for topics its own cluster has, so each alias of
// a topic elsewhere has a stub on home: an empty topic with as many partitions. A
// [Keeper] makes and extends the stubs of one virtual cluster, and says in its
// [Snapshot] which of them every live broker of home shows: only those may be used.
// A stub that somebody deletes is made again, and one whose alias is gone is deleted
// when its time of grace is over.
//
// Where home refuses a stub, the snapshot says why; offsets of that topic are then
// kept on its own cluster (S2).
package stub

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"tollgate.internal/services/proxy/internal/upstream"
)

// Segment follows the virtual cluster's prefix in the name of every stub.
const Segment = "__tg.stub."

// maxName is Kafka's limit for the names of topics.
const maxName = 249

// identityLen is an identity's length in a name.
const identityLen = 22

// strict refuses a second spelling of the same identity.
var strict = base64.RawURLEncoding.Strict()

// Name is the stub of an alias while the topic behind it has this identity:
// <prefix>__tg.stub.<alias>.<identity>.
func Name(prefix, alias string, identity [16]byte) string {
	return prefix + Segment + Label(prefix, alias) + "." + strict.EncodeToString(identity[:])
}

// Label stands for the alias in names of stubs: the alias itself or, where the name
// would become too long, a hash of it.
func Label(prefix, alias string) string {
	if len(prefix)+len(Segment)+len(alias)+1+identityLen <= maxName {
		return alias
	}
	sum := sha256.Sum256([]byte("tollgate stub\x00" + alias))
	return "sha256." + strict.EncodeToString(sum[:])
}

// Parse takes a stub's name apart. The alias is its [Label].
func Parse(prefix, name string) (alias string, identity [16]byte, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix+Segment)
	dot := len(rest) - identityLen - 1
	if !ok || dot < 1 || rest[dot] != '.' {
		return "", identity, false
	}
	if _, err := strict.Decode(identity[:], []byte(rest[dot+1:])); err != nil {
		return "", identity, false
	}
	return rest[:dot], identity, true
}

// Found is a stub in a snapshot of home's metadata, confirmed or not.
type Found struct {
	Stub
	Identity [16]byte
}

// Find returns the stubs there are of an alias, one for each identity it has had:
// what is known of a topic whose cluster has not been reached yet.
func Find(m *upstream.Metadata, prefix, alias string) []Found {
	var found []Found
	label := Label(prefix, alias)
	for _, t := range m.WithPrefix(prefix + Segment + label + ".") {
		if l, identity, ok := Parse(prefix, t.Name); ok && l == label {
			found = append(found, Found{Stub{t.Name, t.ID, len(t.Partitions)}, identity})
		}
	}
	return found
}

// Want is a stub that has to be there: on home, under Name, with at least Partitions.
type Want struct {
	Alias      string // what operators are told it is for
	Name       string
	Partitions int               // 0: it is used if it is there, and not made
	Foreign    *upstream.Cluster // where the alias's topic lives; nil: it has never been reached
	Always     bool              // it is made whatever is on other clusters: it stands for no alias
}

// Stub is one that every live broker of home shows.
type Stub struct {
	Name       string
	ID         [16]byte // zero when home has no topic ids
	Partitions int
}

// Snapshot is what is known of the wanted stubs at one moment. It is immutable.
type Snapshot struct {
	stubs      map[string]Stub
	refused    map[string]error
	settled    bool
	superseded chan struct{}
}

// Stub finds a stub that may be used. It stays, with the id and the number of
// partitions it had, while it is being extended or repaired.
func (s *Snapshot) Stub(name string) (Stub, bool) {
	st, ok := s.stubs[name]
	return st, ok
}

// Refused is why a wanted stub cannot be there; nil for one that is, also when it is
// smaller than wanted and cannot be extended, and for one of which nothing is known yet.
func (s *Snapshot) Refused(name string) error { return s.refused[name] }

// Settled reports whether nothing is under way: every wanted stub is confirmed or
// refused, or waits for a cluster that cannot be asked now.
func (s *Snapshot) Settled() bool { return s.settled }

// Changed is closed when there is a newer snapshot.
func (s *Snapshot) Changed() <-chan struct{} { return s.superseded }
