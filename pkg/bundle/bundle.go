package bundle

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"

	"tollgate.internal/pkg/resource"
)

// Format is the newest format of bundles that this package reads, and the one it
// writes. Heads and commands have numbers of their own: a proxy that cannot read the
// bundles of a newer portal knows all the same how far everything is published, and
// serves what it can read.
const Format uint16 = FormatPolicies

// The formats. A bundle is of the lowest that says what must not be passed over in it.
const (
	formatFirst uint16 = 1
	// FormatPolicies is the first with [Policies]: a proxy that reads less does not know
	// that there are any.
	FormatPolicies uint16 = 2
)

// MaxPlainBytes bounds a bundle before it is compressed.
const MaxPlainBytes = 32 << 20

// A Kind is what a bundle is of.
type Kind string

// The kinds; of single objects, as the resources spell theirs.
const (
	VirtualCluster  Kind = resource.KindVirtualCluster
	UpstreamCluster Kind = resource.KindUpstreamCluster
	Policies        Kind = "Policies"
)

// Everywhere is the bundle with the policies of all virtual clusters, the only one of its
// kind. It is complete: what is not in it is no longer in force. No virtual cluster has its
// name, which versions that do not know the kind look for.
var Everywhere = ID{Policies, "*"}

// An ID says which bundle it is. Of each there is one, at some revision.
type ID struct {
	Kind Kind
	Name string
}

// String is the kind and the name.
func (id ID) String() string { return string(id.Kind) + " " + id.Name }

// A Bundle is what there is of one virtual cluster or upstream cluster at a
// revision.
type Bundle struct {
	Deployment string // whose it is
	ID
	Revision int64 // of the store, at its last change; positive
	Deleted  bool  // a tombstone: nothing is left of it

	// Objects of a virtual cluster: its Tenant, itself, its TopicGrants, AliasTopics,
	// ServiceAccounts, Acls and Policies. Of an upstream cluster: itself. Of [Everywhere]: the
	// Policies of no virtual cluster, perhaps none. Of a tombstone: none.
	Objects Objects
}

// plain is the body of a bundle, compressed by DEFLATE.
type plain struct {
	Deployment string            `json:"deployment"`
	Kind       Kind              `json:"kind"`
	Name       string            `json:"name"`
	Revision   int64             `json:"revision"`
	Deleted    bool              `json:"deleted,omitempty"`
	Objects    []json.RawMessage `json:"objects,omitempty"`
}

// SealBundle encodes and signs b. It refuses what Open would refuse.
func (s *Signer) SealBundle(b *Bundle) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	objects, err := b.Objects.encode()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(plain{b.Deployment, b.Kind, b.Name, b.Revision, b.Deleted, objects})
	if err != nil {
		return nil, refuse(Malformed, "encode %v: %v", b.ID, err)
	}
	if len(text) > MaxPlainBytes {
		return nil, refuse(TooLarge, "%v takes %d bytes, and %d is the most that proxies read", b.ID, len(text), MaxPlainBytes)
	}
	body, err := deflate(text)
	if err != nil {
		return nil, refuse(Malformed, "compress %v: %v", b.ID, err)
	}
	if b.Kind == Policies {
		return s.seal(ForBundle, FormatPolicies, body)
	}
	return s.seal(ForBundle, formatFirst, body)
}

// Open reads the bundle of a deployment and an id.
func (k Keyring) Open(data []byte, deployment string, id ID) (*Bundle, error) {
	body, err := k.Unseal(ForBundle, data)
	if err != nil {
		return nil, err
	}
	text, err := inflate(body)
	if err != nil {
		return nil, err
	}
	var p plain
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, refuse(Malformed, "decode: %v", err)
	}
	b := &Bundle{Deployment: p.Deployment, ID: ID{p.Kind, p.Name}, Revision: p.Revision, Deleted: p.Deleted}
	switch {
	case b.Deployment != deployment:
		return nil, refuse(Foreign, "of deployment %q, and this is %q: two deployments share a Redis and a signing key", b.Deployment, deployment)
	case b.ID != id:
		return nil, refuse(Misplaced, "of %v, and kept in the place of %v", b.ID, id)
	}
	if b.Objects, err = decode(p.Objects); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return b, nil
}

// check reports what makes no sense in b: above all an object that is none of its
// business.
func (b *Bundle) check() error {
	switch {
	case b.Deployment == "":
		return refuse(Malformed, "of no deployment")
	case b.Kind != VirtualCluster && b.Kind != UpstreamCluster && b.Kind != Policies:
		return refuse(Malformed, "of unknown kind %q", b.Kind)
	case b.Kind == Policies && (b.ID != Everywhere || b.Deleted):
		return refuse(Malformed, "of %v: there are those of all virtual clusters alone, and always", b.ID)
	case b.Name == "":
		return refuse(Malformed, "of a %s without a name", b.Kind)
	case b.Revision <= 0:
		return refuse(Malformed, "of %v at revision %d: revisions are positive", b.ID, b.Revision)
	case b.Deleted:
		if len(b.Objects) > 0 {
			return refuse(Malformed, "%v is deleted, and has objects", b.ID)
		}
		return nil
	}
	return b.Objects.checkOf(b.ID)
}

// Claims reports whether b is of a virtual cluster that a host name leads to: its
// label, or one of its custom hosts.
func (b *Bundle) Claims(host string) bool {
	return slices.Contains(b.Hosts(), host)
}

// Hosts are the names under which a virtual cluster is found: its label, and its
// custom hosts, in small letters. The label has no dot, custom hosts have one.
func (b *Bundle) Hosts() []string {
	if b.Kind != VirtualCluster || b.Deleted {
		return nil
	}
	vc := b.Objects.virtualCluster(b.Name)
	if vc == nil {
		return nil
	}
	var hosts []string
	for _, h := range append([]string{vc.Spec.Host}, vc.Spec.CustomHosts...) {
		if h != "" {
			hosts = append(hosts, lower(h))
		}
	}
	return hosts
}

// lower folds ASCII alone: to Unicode, the Kelvin sign is a k.
func lower(host string) string {
	return string(bytes.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, []byte(host)))
}

// Set is what proxies compile from: the objects of a virtual cluster.
func (b *Bundle) Set() *resource.Set { return b.Objects.set() }

// Upstream is the object of an upstream cluster; nil of anything else.
func (b *Bundle) Upstream() *resource.UpstreamCluster {
	if b.Kind != UpstreamCluster {
		return nil
	}
	return b.Objects.upstreamCluster(b.Name)
}

// deflaters are used again: one takes more than a megabyte, and bundles are small.
var deflaters = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		panic(err) // there is such a level
	}
	return w
}}

func deflate(text []byte) ([]byte, error) {
	var out bytes.Buffer
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	w.Reset(&out)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// inflate reads what was signed: a bound for the portal's mistakes, not for enemies.
func inflate(body []byte) ([]byte, error) {
	in := bytes.NewReader(body)
	r := flate.NewReader(in)
	text, err := io.ReadAll(io.LimitReader(r, MaxPlainBytes+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, refuse(Malformed, "its compressed part ends too early")
	case err != nil:
		return nil, refuse(Malformed, "its compressed part: %v", err)
	case len(text) > MaxPlainBytes:
		return nil, refuse(TooLarge, "more than %d bytes when decompressed", MaxPlainBytes)
	case in.Len() > 0:
		return nil, refuse(Malformed, "there is something behind its compressed part")
	}
	return text, nil
}
