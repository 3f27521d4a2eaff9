package control

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/portal/internal/store"
)

// Secret is what may be known of a service account's secret.
type Secret struct {
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"` // zero: never
	Imported bool      `json:"imported,omitempty"`
}

func secretOf(s store.Secret) Secret {
	return Secret{ID: s.ID, Created: s.CreatedAt, Expires: s.ExpiresAt, Imported: s.Imported}
}

// Live reports whether clients can log in with it.
func (s *Secret) Live(now time.Time) bool { return s.Expires.IsZero() || now.Before(s.Expires) }

func live(s store.Secret, now time.Time) bool { return s.ExpiresAt.IsZero() || now.Before(s.ExpiresAt) }

// maxSecrets is how many may be live: the old one and the new one.
const maxSecrets = 2

// Issued is a new secret. The password is told now and never again.
type Issued struct {
	Secret
	Username string
	Password secret.Secret
	Revision int64
}

// IssueSecret makes a secret of an account: 32 random bytes. Expires zero: never.
func (c *Control) IssueSecret(ctx context.Context, actor Actor, account resource.Key, expires time.Time, options Options) (Issued, error) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	password := base64.RawURLEncoding.EncodeToString(random)
	var issued Issued
	err := c.write(ctx, actor, options.DryRun, func(w *write) error {
		a, err := w.account(ctx, account, options)
		if err != nil {
			return err
		}
		made, err := a.add(ctx, password, nil, expires, ActionIssueSecret)
		issued = Issued{Secret: made, Username: account.Name, Password: secret.New(password), Revision: w.tx.Revision}
		return err
	})
	if err != nil {
		return Issued{}, err
	}
	return issued, nil
}

// Import is a secret that exists already: a password, or what verifies it.
type Import struct {
	Password  secret.Secret
	Verifiers []resource.Verifier // their ids and expiries are not looked at
	Expires   time.Time           // zero: never
}

// ImportSecret adds a secret to an account. One that the account has, live, is left
// as it is, and told of as Unchanged.
func (c *Control) ImportSecret(ctx context.Context, actor Actor, account resource.Key, from Import, options Options) (s Secret, change Change, revision int64, err error) {
	if err := from.check(); err != nil {
		return Secret{}, "", 0, err
	}
	err = c.write(ctx, actor, options.DryRun, func(w *write) error {
		a, err := w.account(ctx, account, options)
		if err != nil {
			return err
		}
		if same := a.find(from); same != nil {
			s, change, revision = secretOf(*same), Unchanged, same.Revision
			return nil
		}
		change, revision = Created, w.tx.Revision
		s, err = a.add(ctx, from.Password.Reveal(), from.Verifiers, from.Expires, ActionImportSecret)
		return err
	})
	if err != nil {
		return Secret{}, "", 0, err
	}
	return s, change, revision, nil
}

const maxPasswordBytes = 1024

func (i *Import) check() error {
	password := i.Password.Reveal()
	switch {
	case password != "" && len(i.Verifiers) > 0:
		return invalid("verifiers", "stand in the place of a password: send one or the other")
	case password == "" && len(i.Verifiers) == 0:
		return invalid("password", "required, or verifiers; to have a secret made, send neither field")
	case len(password) > maxPasswordBytes:
		return invalid("password", "has more than %d bytes", maxPasswordBytes)
	case !utf8.ValidString(password) || strings.ContainsRune(password, 0):
		return invalid("password", "must be UTF-8 without NUL: clients could not send it")
	}
	var problems resource.Problems
	seen := make(map[string]bool)
	for n := range i.Verifiers {
		v, field := &i.Verifiers[n], fmt.Sprintf("verifiers[%d]", n)
		problems = append(problems, resource.CheckVerifier(field, v)...)
		if seen[v.Mechanism] {
			problems = append(problems, resource.Problem{Field: field + ".mechanism", Message: "appears twice: one secret has one verifier for each mechanism"})
		}
		seen[v.Mechanism] = true
	}
	if len(problems) > 0 {
		return &Invalid{problems}
	}
	return nil
}

// ListSecrets lists the secrets of an account, the oldest first, expired ones too.
func (c *Control) ListSecrets(ctx context.Context, account resource.Key, options Options) ([]Secret, error) {
	var all []Secret
	err := c.store.Read(ctx, func(tx *store.Tx) error {
		w := &write{tx: tx, now: c.now()}
		a, err := w.account(ctx, account, options)
		if err != nil {
			return err
		}
		all = nil
		for _, s := range a.secrets {
			all = append(all, secretOf(s))
		}
		return nil
	})
	return all, err
}

// ExpireSecret sets when a secret ends; zero: never. A time that is past, or now,
// ends it at once, and the sessions that it was used for.
func (c *Control) ExpireSecret(ctx context.Context, actor Actor, account resource.Key, id string, expires time.Time, options Options) (s Secret, revision int64, err error) {
	err = c.write(ctx, actor, options.DryRun, func(w *write) error {
		a, err := w.account(ctx, account, options)
		if err != nil {
			return err
		}
		kept, err := a.secret(id)
		if err != nil {
			return err
		}
		before := *kept
		s, revision = secretOf(before), before.Revision
		if expires = micro(expires); expires.IsZero() && before.ExpiresAt.IsZero() || expires.Equal(before.ExpiresAt) {
			return nil
		}
		kept.ExpiresAt, kept.Revision = zeroOr(expires), w.tx.Revision
		if live(*kept, w.now) && !live(before, w.now) {
			if err := a.room(kept.Verifiers, id); err != nil {
				return err
			}
		}
		s, revision = secretOf(*kept), w.tx.Revision
		return a.keep(ctx, *kept, ActionExpireSecret, &before)
	})
	if err != nil {
		return Secret{}, 0, err
	}
	return s, revision, nil
}

func zeroOr(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t
}

// RevokeSecret ends a secret and forgets it.
func (c *Control) RevokeSecret(ctx context.Context, actor Actor, account resource.Key, id string, options Options) (revision int64, err error) {
	err = c.write(ctx, actor, options.DryRun, func(w *write) error {
		a, err := w.account(ctx, account, options)
		if err != nil {
			return err
		}
		kept, err := a.secret(id)
		if err != nil {
			return err
		}
		if _, err := w.tx.DeleteSecrets(ctx, account.Scope, account.Name, id); err != nil {
			return err
		}
		revision = w.tx.Revision
		return a.changed(ctx, ActionRevokeSecret, id, kept, nil)
	})
	return revision, err
}

// account is one whose secrets are looked at.
type account struct {
	w       *write
	key     resource.Key
	tenant  string
	object  resource.Object
	secrets []store.Secret
}

func (w *write) account(ctx context.Context, key resource.Key, options Options) (*account, error) {
	if !storableKey(key) {
		return nil, &NotFound{Key: key}
	}
	row, ok, err := w.tx.Object(ctx, key)
	if err != nil {
		return nil, err
	}
	if !ok || key.Kind != resource.KindServiceAccount || options.Tenant != "" && row.Tenant != options.Tenant {
		return nil, &NotFound{Key: key}
	}
	o, err := read(row)
	if err != nil {
		return nil, err
	}
	secrets, err := w.tx.Secrets(ctx, key.Scope, key.Name)
	return &account{w: w, key: key, tenant: row.Tenant, object: o, secrets: secrets}, err
}

func (a *account) secret(id string) (*store.Secret, error) {
	i := slices.IndexFunc(a.secrets, func(s store.Secret) bool { return s.ID == id })
	if i < 0 {
		return nil, &NotFound{Key: a.key, What: "secret " + id}
	}
	return &a.secrets[i], nil
}

// live are the secrets that clients can log in with, but for one.
func (a *account) live(except string) (all []store.Secret) {
	for _, s := range a.secrets {
		if s.ID != except && live(s, a.w.now) {
			all = append(all, s)
		}
	}
	return all
}

// find finds the live secret that an import would double.
func (a *account) find(from Import) *store.Secret {
	for _, s := range a.live("") {
		if len(from.Verifiers) == 0 {
			if verifies(s.Verifiers, from.Password.Reveal()) {
				return &s
			}
			continue
		}
		same := func(v resource.Verifier) bool {
			return slices.ContainsFunc(s.Verifiers, func(o resource.Verifier) bool { return bare(v) == bare(o) })
		}
		if !slices.ContainsFunc(from.Verifiers, func(v resource.Verifier) bool { return !same(v) }) {
			return &s
		}
	}
	return nil
}

// bare is a verifier without what the secret says about itself.
func bare(v resource.Verifier) resource.Verifier {
	v.ID, v.Expires = "", time.Time{}
	return v
}

// room reports why there can be no further live secret.
func (a *account) room(verifiers []resource.Verifier, except string) error {
	others := a.live(except)
	if len(others) >= maxSecrets {
		names := make([]string, len(others))
		for i, s := range others {
			names[i] = s.ID
		}
		return refused("%s has %d live secrets, %s, and no more can be: the old one and the new one; expire or revoke one of them first", a.key, len(others), strings.Join(names, " and "))
	}
	for _, s := range others {
		for _, v := range verifiers {
			if o := ofMechanism(s.Verifiers, v.Mechanism); o != nil && v.Salt != "" && (o.Salt != v.Salt || o.Iterations != v.Iterations) {
				return refused("secret %s of %s has another salt or number of iterations for %s, and the salt is sent before the client shows which secret it has: expire or revoke that one first, or send verifiers with the same", s.ID, a.key, v.Mechanism)
			}
		}
	}
	return nil
}

// add makes a secret of a password or of verifiers.
func (a *account) add(ctx context.Context, password string, given []resource.Verifier, expires time.Time, action Action) (Secret, error) {
	if o, ok := a.object.(*resource.ServiceAccount); !ok || o.Spec.Type != resource.Local {
		return Secret{}, refused("%s is external: others vouch for it, so it has no secrets; set spec.type to local to give it one", a.key)
	}
	expires = zeroOr(micro(expires))
	if !expires.IsZero() && !a.w.now.Before(expires) {
		return Secret{}, invalid("expires", "is past: the secret would never be good")
	}
	var like []resource.Verifier
	for _, s := range a.live("") {
		like = append(like, s.Verifiers...)
	}
	made := store.Secret{
		VirtualCluster: a.key.Scope, Account: a.key.Name, ID: strings.ToLower(rand.Text()[:12]), Revision: a.w.tx.Revision,
		CreatedAt: a.w.now, ExpiresAt: expires, Imported: action == ActionImportSecret, Verifiers: slices.Clone(given),
	}
	if err := a.room(given, ""); err != nil {
		return Secret{}, err
	}
	if len(given) == 0 {
		var err error
		if made.Verifiers, err = verifiers(password, like); err != nil {
			return Secret{}, fmt.Errorf("secret of %s: %w", a.key, err)
		}
	}
	for i := range made.Verifiers {
		made.Verifiers[i] = bare(made.Verifiers[i])
	}
	for _, s := range a.secrets { // what expired is of no use any more
		if !live(s, a.w.now) {
			if _, err := a.w.tx.DeleteSecrets(ctx, a.key.Scope, a.key.Name, s.ID); err != nil {
				return Secret{}, err
			}
		}
	}
	return secretOf(made), a.keep(ctx, made, action, nil)
}

func (a *account) keep(ctx context.Context, s store.Secret, action Action, before *store.Secret) error {
	if err := a.w.tx.PutSecret(ctx, s); err != nil {
		return err
	}
	if before == nil {
		if problem, err := a.w.tooLarge(ctx, a.key.Scope, a.tenant); err != nil {
			return err
		} else if problem != "" {
			return invalid("virtualCluster", "%s", problem)
		}
	}
	return a.changed(ctx, action, s.ID, before, &s)
}

// changed enters a change of a secret into the log, and into the bundle.
func (a *account) changed(ctx context.Context, action Action, id string, before, after *store.Secret) error {
	text := func(s *store.Secret) string {
		if s == nil {
			return ""
		}
		raw, _ := json.Marshal(secretOf(*s)) // strings and times only
		return string(raw)
	}
	a.w.touch(a.object, false)
	return a.w.audit(ctx, string(action), a.key, a.tenant, "secret "+id, text(before), text(after))
}

// addSecrets completes the status of a service account.
func (w *write) addSecrets(ctx context.Context, s *Stored) error {
	key := resource.KeyOf(s.Object)
	secrets, err := w.tx.Secrets(ctx, key.Scope, key.Name)
	for _, k := range secrets {
		s.Status.Secrets = append(s.Status.Secrets, secretOf(k))
	}
	return err
}

// listSecrets is addSecrets for a list of accounts: it asks once for each virtual
// cluster.
func listSecrets(ctx context.Context, tx *store.Tx, accounts []Stored) error {
	of := ""
	secrets := make(map[string][]Secret) // of one virtual cluster, by account
	for i := range accounts {
		key := resource.KeyOf(accounts[i].Object)
		if key.Scope != of {
			all, err := tx.Secrets(ctx, key.Scope, "")
			if err != nil {
				return err
			}
			of = key.Scope
			clear(secrets)
			for _, s := range all {
				secrets[s.Account] = append(secrets[s.Account], secretOf(s))
			}
		}
		accounts[i].Status.Secrets = secrets[key.Name]
	}
	return nil
}
