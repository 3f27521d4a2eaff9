package dev

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/manifest"
	"tollgate.internal/pkg/resource"
)

// The label of what was made of files: what has it and is in no file any more is
// deleted.
const managedBy, thisRun = "managed-by", "tollgate-dev"

// files are the resource files that a run follows.
type files struct {
	dir       string
	upstreams []Upstream // that no file defines
	database  string     // where they are applied
	state     string     // directory
	plane     *plane

	seen      uint64 // [resource.Signature] of what was applied last, or tried
	passwords map[resource.Key]string
}

// applied remembers what was made of the files: what they say is applied when they
// say something new, so that what was changed otherwise meanwhile stays.
type applied struct {
	Sum     string            `json:"sum"`
	Secrets map[string]string `json:"secrets"` // ids, by account
}

const appliedFile = "applied.json"

func (f *files) read() (*manifest.Manifest, error) {
	var problems resource.Problems
	written := resource.Read(f.dir, &problems)
	for _, u := range f.upstreams {
		text := fmt.Sprintf("{apiVersion: tollgate/v1, kind: UpstreamCluster, metadata: {name: %q}, spec: {bootstrap: [\"%s\"]}}", u.Name, strings.Join(u.Bootstrap, `", "`))
		written = append(written, resource.ReadText("--upstream", f.dir, []byte(text), &problems)...)
	}
	m := manifest.New(written)
	if len(problems) > 0 {
		problems.Sort()
		return nil, problems
	}
	f.passwords = make(map[resource.Key]string)
	for _, s := range m.Secrets {
		f.passwords[resource.KeyOf(s.Account.Object)] = s.Password.Reveal()
	}
	for _, o := range m.Written {
		meta := o.Object.Meta()
		if meta.Labels == nil {
			meta.Labels = make(map[string]string)
		}
		meta.Labels[managedBy] = thisRun
	}
	return m, nil
}

// sum changes with whatever the files say, and with the database.
func (f *files) sum(m *manifest.Manifest) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, f.database)
	for _, o := range m.Objects() {
		text, err := resource.Marshal(o)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s\n", text)
	}
	for _, s := range m.Secrets {
		verifiers, err := json.Marshal(s.Verifier)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %q %s\n", resource.KeyOf(s.Account.Object), s.Password.Reveal(), verifiers)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// apply makes the control plane have what the files say, unless they say what they
// said before.
func (f *files) apply(ctx context.Context) error {
	f.seen = resource.Signature(f.dir) // before they are read: what changes meanwhile is read again
	m, err := f.read()
	if err != nil {
		return err
	}
	sum, err := f.sum(m)
	if err != nil {
		return err
	}
	before, err := f.remembered()
	if err != nil {
		return err
	}
	if before.Sum == sum && f.there(ctx, m) {
		return nil
	}
	if _, err := f.plane.client.Apply(ctx, m.Objects(), managedBy+"="+thisRun, client.Change{}); err != nil {
		return m.Locate(err)
	}
	now := applied{Sum: sum, Secrets: make(map[string]string)}
	for i := range m.Secrets {
		id, err := f.importSecret(ctx, &m.Secrets[i], before)
		if err != nil {
			return err
		}
		now.Secrets[resource.KeyOf(m.Secrets[i].Account.Object).String()] = id
	}
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return WriteFile(filepath.Join(f.state, appliedFile), text, 0o600)
}

// importSecret has an account have the secret that stands beside it, and no longer
// the one that stood there before.
func (f *files) importSecret(ctx context.Context, s *manifest.Secret, before applied) (id string, err error) {
	key := resource.KeyOf(s.Account.Object)
	old := before.Secrets[key.String()]
	made, err := s.Import(ctx, f.plane.client, 0)
	if client.IsStatus(err, 409, 422) && old != "" { // there are two, and the old one goes anyway
		if err := f.revoke(ctx, key, old); err != nil {
			return "", err
		}
		made, err = s.Import(ctx, f.plane.client, 0)
	}
	if err != nil {
		return "", err
	}
	if old != "" && old != made.ID {
		return made.ID, f.revoke(ctx, key, old)
	}
	return made.ID, nil
}

func (f *files) revoke(ctx context.Context, account resource.Key, id string) error {
	err := f.plane.client.RevokeSecret(ctx, account, id, 0)
	if client.IsNotFound(err) {
		return nil
	}
	return err
}

func (f *files) remembered() (a applied, err error) {
	text, err := os.ReadFile(filepath.Join(f.state, appliedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil {
		return a, fmt.Errorf("read %s: %w", appliedFile, err)
	}
	return a, nil
}

// there reports whether the control plane was told before: a database may be new.
func (f *files) there(ctx context.Context, m *manifest.Manifest) bool {
	if len(m.Written) == 0 {
		return true
	}
	_, err := f.plane.client.Get(ctx, resource.KeyOf(m.Written[0].Object))
	return err == nil
}

// follow applies the files when they change, until ctx ends.
func (f *files) follow(ctx context.Context, r *run) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if resource.Signature(f.dir) == f.seen {
			continue
		}
		r.mu.Lock() // describe reads the passwords
		err := f.apply(ctx)
		r.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("resource files not applied, what was applied before stays", "dir", f.dir, "err", err)
			if _, unreachable := errors.AsType[*client.Unreachable](err); unreachable {
				f.seen = 0 // again
			}
		}
	}
}

// definedClusters are the UpstreamClusters that resource files define themselves. What
// is wrong with the files is reported when they are applied.
func definedClusters(dir string) map[string]bool {
	var problems resource.Problems
	defined := make(map[string]bool)
	for _, o := range resource.Read(dir, &problems) {
		if u, ok := o.Object.(*resource.UpstreamCluster); ok {
			defined[u.Metadata.Name] = true
		}
	}
	return defined
}
