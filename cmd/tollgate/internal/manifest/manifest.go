// Package manifest is what files say a control plane is to have: objects, and the
// secrets of service accounts, which are sent by themselves.
package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

// A Manifest is in the order in which objects can be made.
type Manifest struct {
	Written []*resource.Written
	Secrets []Secret
}

// Secret is one that stands beside its account in a file. It goes to the server by a
// call of its own, and no reference does: the server could not read it.
type Secret struct {
	Account  *resource.Written
	Password secret.Secret
	Verifier []resource.Verifier
}

// New takes the secrets out of objects and puts the objects in order. What is wrong
// is said to the objects.
func New(written []*resource.Written) *Manifest {
	m := &Manifest{Written: written}
	first := make(map[resource.Key]*resource.Written)
	for _, o := range written {
		key := resource.KeyOf(o.Object)
		if other := first[key]; other != nil {
			o.Problem("metadata.name", "%s stands in %s:%d already", key, other.File, other.Line)
		}
		first[key] = o
	}
	for _, o := range written {
		m.takeSecrets(o)
	}
	slices.SortStableFunc(m.Written, func(a, b *resource.Written) int {
		return resource.KeyOf(a.Object).Compare(resource.KeyOf(b.Object))
	})
	return m
}

// takeSecrets takes what proves an account out of it.
func (m *Manifest) takeSecrets(o *resource.Written) {
	a, ok := o.Object.(*resource.ServiceAccount)
	if !ok || a.Spec.Type == resource.External {
		return // where they have no meaning the server says so
	}
	if a.Spec.Password != "" {
		password, err := secret.Resolve(string(a.Spec.Password), "")
		if err != nil {
			o.Problem("spec.password", "%v", err)
		}
		m.Secrets = append(m.Secrets, Secret{Account: o, Password: password})
		a.Spec.Password = ""
	}
	// Verifiers of one id are one secret; those without are one too.
	byID := make(map[string]int)
	for _, v := range a.Spec.Verifiers {
		at, ok := byID[v.ID]
		if !ok {
			at = len(m.Secrets)
			byID[v.ID] = at
			m.Secrets = append(m.Secrets, Secret{Account: o})
		}
		m.Secrets[at].Verifier = append(m.Secrets[at].Verifier, v)
	}
	a.Spec.Verifiers = nil
}

// Objects are the objects.
func (m *Manifest) Objects() []resource.Object {
	objects := make([]resource.Object, len(m.Written))
	for i, o := range m.Written {
		objects[i] = o.Object
	}
	return objects
}

// Located is a refusal with the places in files that it is about.
type Located struct {
	Problems resource.Problems
	Refusal  *client.Refusal
}

func (e *Located) Error() string { return e.Problems.Error() }
func (e *Located) Unwrap() error { return e.Refusal }

// Locate finds the lines that a server's problems are about.
func (m *Manifest) Locate(err error) error {
	no, ok := errors.AsType[*client.Refusal](err)
	if !ok || len(no.Errors) == 0 {
		return err
	}
	var found resource.Problems
	for _, f := range no.Errors {
		var o *resource.Written
		for _, candidate := range m.Written {
			if f.Object == resource.KeyOf(candidate.Object).String() || f.Object == "" && len(m.Written) == 1 {
				o = candidate
			}
		}
		p := resource.Problem{Field: f.Field, Message: f.Message}
		switch {
		case o != nil:
			p.File, p.Line = o.File, o.Lines.Of(f.Field, o.Line)
		case f.Object != "":
			p.Message = f.Object + ": " + f.Message
		}
		found = append(found, p)
	}
	found.Sort()
	return &Located{found, no}
}

// Import sends one secret, which may be there already. What is late is its error,
// beside the secret.
func (s *Secret) Import(ctx context.Context, c *client.Client, wait time.Duration) (*client.Secret, error) {
	key := resource.KeyOf(s.Account.Object)
	added, err := c.AddSecret(ctx, key, client.NewSecret{Password: s.Password.Reveal(), Verifiers: s.Verifier}, wait)
	if err != nil && !client.IsLate(err) {
		return nil, fmt.Errorf("%s:%d: the secret of %s: %w", s.Account.File, s.Account.Line, key, err)
	}
	return added, err
}
