package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
	"tollgate.internal/services/proxy/internal/refusal"
)

// Identity is who a client proved to be, and by what.
type Identity struct {
	Principal string // as Kafka prints it: User:alice
	Account   string // the service account; "" for anonymous
	Mechanism string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, mTLS or anonymous
	// Credential is a fingerprint of the secret used, "" for tokens and
	// certificates. It means something only within one process.
	Credential string
	// ExternalName is the token's subject or the certificate's name; Issuer who
	// vouched for it: the token's issuer, or the fingerprint of the root.
	ExternalName, Issuer string
	Expires              time.Time // zero: never

	dn       string // the certificate's full name, for StillValid
	audience string // of the token: the parts, each with a NUL behind it, for StillValid
	claim    string // of the token: where ExternalName stood
}

// Mechanisms that are no SASL mechanism, as Identity.Mechanism names them.
const (
	MTLS      = "mTLS"
	Anonymous = "anonymous"
)

// An Exchange is one run of a SASL mechanism. It is not for concurrent use.
type Exchange interface {
	// Step takes a message of the client. Without an error, server is to be sent
	// and done says whether the client is admitted. An error ends the exchange;
	// see [Verdict].
	Step(ctx context.Context, client []byte) (server []byte, done bool, err error)
	// Identity is valid after done.
	Identity() Identity
	// Claimed is the name the client goes by, known before it is proven: for
	// back-off and logs. "" until a message named one.
	Claimed() string
	// Claims is Claimed as it will be after the message, which is not judged: a
	// client that failed before can be made to wait before its proof is looked at.
	Claims(client []byte) string
}

// Realm is how the clients of one virtual cluster prove who they are.
type Realm struct {
	vc        string
	deps      *Deps
	settings  resource.Authentication
	accounts  map[string]*account
	external  map[string]*account // by external name
	issuers   map[string]*issuer
	certs     *certificates            // nil: none are taken
	plainWork map[work]int             // what a failed PLAIN login costs
	scramWork map[scramMechanism]int   // how many proofs a failed SCRAM login checks
	shapes    map[scramMechanism]shape // what users that do not exist look like
}

// shape is what a client can see of a verifier.
type shape struct{ saltBytes, iterations int }

// NewRealm reports every problem it finds. It resolves the references of
// passwords and derives their keys, which takes milliseconds for each password
// it has not seen before.
func NewRealm(vc *resource.VirtualCluster, accounts []*resource.ServiceAccount, deps *Deps) (*Realm, error) {
	r, problem := newRealm(vc, accounts, deps)
	if problem != nil {
		return nil, problem
	}
	return r, nil
}

// Narrow is NewRealm without what it has problems with: accounts, issuers and names that
// cannot be made out are nobody's way in. Certificates are taken as by the realm of
// before if they are to be taken in the same way, and not at all otherwise.
func Narrow(vc *resource.VirtualCluster, accounts []*resource.ServiceAccount, deps *Deps, before *Realm) *Realm {
	r, _ := newRealm(vc, accounts, deps)
	if now, was := r.settings.MTLS, before.settings.MTLS; r.certs == nil && now != nil && was != nil && *now == *was {
		r.certs = before.certs
	}
	return r
}

// newRealm returns every problem, and the realm without what is one.
func newRealm(vc *resource.VirtualCluster, accounts []*resource.ServiceAccount, deps *Deps) (*Realm, error) {
	r := &Realm{
		vc: vc.Metadata.Name, deps: deps, settings: vc.Spec.Authentication,
		accounts:  make(map[string]*account, len(accounts)),
		external:  make(map[string]*account),
		issuers:   make(map[string]*issuer),
		plainWork: make(map[work]int),
		scramWork: map[scramMechanism]int{scramSHA256: 1, scramSHA512: 1},
		shapes:    make(map[scramMechanism]shape),
	}
	var problems []error
	var doubtful []string // external names of several accounts
	for _, a := range accounts {
		acc, err := r.newAccount(a)
		if err == nil && r.accounts[acc.name] != nil {
			err = a.Metadata.Problem("metadata.name", "service account %q of %q is declared twice", acc.name, r.vc)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r.accounts[acc.name] = acc
		if !acc.external {
			continue
		}
		for _, name := range a.Spec.ExternalNames {
			if other := r.external[name]; other != nil && other != acc {
				problems = append(problems, a.Metadata.Problem("spec.externalNames", "external name %q of service account %q is also one of %q", name, acc.name, other.name))
				doubtful = append(doubtful, name)
			}
			r.external[name] = acc
		}
	}
	for _, name := range doubtful {
		delete(r.external, name)
	}
	problems = append(problems, r.addIssuers(vc))
	certs, err := loadCertificates(vc)
	if err != nil {
		problems = append(problems, err)
	} else {
		r.certs = certs
	}
	r.levelWork()
	return r, errors.Join(problems...)
}

func (r *Realm) newAccount(a *resource.ServiceAccount) (*account, error) {
	acc := &account{
		name: a.Metadata.Name, external: a.Spec.Type == resource.External, expires: a.Spec.Expires,
		scram: make(map[scramMechanism][]*verifier),
	}
	if acc.external {
		return acc, nil // verifiers of an external account would be a second way in
	}
	for i, rv := range a.Spec.Verifiers {
		v, err := newVerifier(r.deps, r.vc, acc.name, rv)
		if err != nil {
			return nil, a.Metadata.Problem(fmt.Sprintf("spec.verifiers[%d]", i), "%v", err)
		}
		if v.scram != "" {
			if o := acc.like(v.scram); o != nil && r.settings.SCRAM != nil &&
				(string(o.keys.salt) != string(v.keys.salt) || o.iterations != v.iterations) {
				return nil, a.Metadata.Problem(fmt.Sprintf("spec.verifiers[%d]", i), "two secrets of %q for %s need the same salt and iterations: the salt is sent before the client shows which secret it has", acc.name, v.scram)
			}
			acc.scram[v.scram] = append(acc.scram[v.scram], v)
		}
		acc.all = append(acc.all, v)
	}
	if a.Spec.Password != "" {
		pw, err := secret.Resolve(string(a.Spec.Password), a.Metadata.BaseDir())
		if err != nil {
			return nil, a.Metadata.Problem("spec.password", "%v", err)
		}
		var mechs []scramMechanism
		if r.settings.SCRAM != nil {
			mechs = []scramMechanism{scramSHA256, scramSHA512}
		} else if r.settings.Plain != nil {
			mechs = []scramMechanism{scramSHA256}
		}
		for _, m := range mechs {
			v := passwordVerifier(r.deps, r.vc, acc.name, m, pw.Reveal(), acc.like(m))
			acc.scram[m] = append(acc.scram[m], v)
			acc.all = append(acc.all, v)
		}
	}
	acc.plain = plainOf(acc.all)
	return acc, nil
}

// like is a verifier whose salt and iterations others of its mechanism share.
func (a *account) like(m scramMechanism) *verifier {
	if vs := a.scram[m]; len(vs) > 0 {
		return vs[0]
	}
	return nil
}

// levelWork finds what the dearest account of the realm costs to check, which is
// what every failure then costs, and the commonest look of a SCRAM verifier,
// which is what a user that does not exist looks like.
func (r *Realm) levelWork() {
	seen := map[scramMechanism]map[shape]int{scramSHA256: {}, scramSHA512: {}}
	for _, a := range r.accounts {
		own := make(map[work]int)
		for _, v := range a.plain {
			own[v.work]++
		}
		for w, n := range own {
			r.plainWork[w] = max(r.plainWork[w], n)
		}
		for m, vs := range a.scram {
			r.scramWork[m] = max(r.scramWork[m], len(vs))
			v := a.like(m)
			seen[m][shape{len(v.keys.salt), v.iterations}]++
		}
	}
	if len(r.plainWork) == 0 {
		r.plainWork[defaultWork] = 1
	}
	for m, counts := range seen {
		r.shapes[m] = shape{saltBytes, minIterations}
		most := 0
		for s, n := range counts {
			// Ties are broken by value: nodes and reloads must agree.
			if n > most || n == most && cmp.Or(s.iterations-r.shapes[m].iterations, s.saltBytes-r.shapes[m].saltBytes) < 0 {
				most, r.shapes[m] = n, s
			}
		}
	}
}

func (r *Realm) fakeSCRAM(user string, m scramMechanism) (salt []byte, iterations int) {
	s := r.shapes[m]
	return r.deps.salt(r.vc, user, m, s.saltBytes), s.iterations
}

// Mechanisms are the SASL mechanisms offered, sorted.
func (r *Realm) Mechanisms() []string {
	set := make(map[string]bool)
	if r.settings.Plain != nil {
		set["PLAIN"] = true
	}
	if r.settings.SCRAM != nil {
		set[string(scramSHA256)], set[string(scramSHA512)] = true, true
	}
	if len(r.issuers) > 0 {
		set[oauthBearer] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// Begin starts an exchange of one of Mechanisms.
func (r *Realm) Begin(mechanism string) (Exchange, error) {
	if slices.Contains(r.Mechanisms(), mechanism) {
		switch mechanism {
		case "PLAIN":
			return &plainExchange{realm: r}, nil
		case string(scramSHA256), string(scramSHA512):
			return &scramExchange{realm: r, mech: scramMechanism(mechanism)}, nil
		case oauthBearer:
			return &oauthExchange{realm: r}, nil
		}
	}
	return nil, refusal.MechanismNotOffered.Errorf("mechanism %q is not among %q", mechanism, r.Mechanisms())
}

// Anonymous admits everybody where the virtual cluster says so.
func (r *Realm) Anonymous() (Identity, bool) {
	if r.settings.Anonymous == nil {
		return Identity{}, false
	}
	return Identity{Principal: "User:ANONYMOUS", Mechanism: Anonymous}, true
}

// MaxReauthentication is how long a login is good for at most (KIP-368); zero
// means as long as its credential.
func (r *Realm) MaxReauthentication() time.Duration {
	return time.Duration(r.settings.MaxReauthentication)
}

// local is the identity of an account that proved a secret.
func (r *Realm) local(a *account, v *verifier, mechanism string) Identity {
	return Identity{
		Principal: "User:" + a.name, Account: a.name, Mechanism: mechanism,
		Credential: v.credential, Expires: earliest(a.expires, v.expires),
	}
}

// earliest treats zero as never.
func earliest(ts ...time.Time) (first time.Time) {
	for _, t := range ts {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Until is when StillValid has to be asked again about a session although nothing
// was changed: when its credential or its account expires. Zero is never.
func (r *Realm) Until(id Identity) time.Time {
	ends := []time.Time{id.Expires}
	if a := r.accounts[id.Account]; a != nil {
		ends = append(ends, a.expires)
		for _, v := range a.all {
			if v.credential == id.Credential {
				ends = append(ends, v.expires)
			}
		}
	}
	return earliest(ends...)
}

// StillValid says whether a session admitted as id, perhaps by an earlier
// realm, may go on. A session whose secret is unchanged goes on.
func (r *Realm) StillValid(id Identity) error {
	now := r.deps.now()
	if !id.Expires.IsZero() && !now.Before(id.Expires) {
		return refusal.CredentialRevoked.Errorf("credential of %s expired", id.Principal)
	}
	if id.Mechanism == Anonymous {
		if r.settings.Anonymous == nil {
			return refusal.CredentialRevoked.Errorf("anonymous clients are no longer admitted")
		}
		return nil
	}
	a := r.accounts[id.Account]
	if a == nil {
		return refusal.CredentialRevoked.Errorf("account %q was removed", id.Account)
	}
	if !a.live(now) {
		return refusal.CredentialRevoked.Errorf("account %q expired", id.Account)
	}
	if id.Mechanism == MTLS {
		return r.certificateStillValid(id, a)
	}
	if !slices.Contains(r.Mechanisms(), id.Mechanism) {
		return refusal.CredentialRevoked.Errorf("%s is no longer offered", id.Mechanism)
	}
	if id.Mechanism == oauthBearer {
		iss := r.issuers[id.Issuer]
		switch {
		case iss == nil:
			return refusal.CredentialRevoked.Errorf("tokens of issuer %q are no longer taken", id.Issuer)
		case iss.claim != id.claim:
			return refusal.CredentialRevoked.Errorf("the name of a token of issuer %q is no longer its claim %q", id.Issuer, id.claim)
		case !iss.takes(id.audience):
			return refusal.CredentialRevoked.Errorf("the audience of %q is no longer taken", id.ExternalName)
		case r.byToken(iss, id.ExternalName) != a:
			return refusal.CredentialRevoked.Errorf("%q is no longer an external name of %q", id.ExternalName, a.name)
		}
		return nil
	}
	expired := false
	for _, v := range a.all {
		if v.credential == id.Credential {
			if v.live(now) {
				return nil
			}
			expired = true
		}
	}
	if expired {
		return refusal.CredentialRevoked.Errorf("secret of account %q expired", id.Account)
	}
	return refusal.CredentialRevoked.Errorf("secret of account %q was changed", id.Account)
}

// SCRAMCredential is what may be told of one: who logs in by what, at what cost.
type SCRAMCredential struct {
	User, Mechanism string
	Iterations      int
}

// SCRAMCredentials are those that clients can log in with now, by user and
// mechanism; accounts with two live secrets come once.
func (r *Realm) SCRAMCredentials() (all []SCRAMCredential) {
	if r.settings.SCRAM == nil {
		return nil
	}
	now := r.deps.now()
	for _, name := range slices.Sorted(maps.Keys(r.accounts)) {
		a := r.accounts[name]
		if !a.live(now) {
			continue
		}
		for _, m := range []scramMechanism{scramSHA256, scramSHA512} {
			if i := slices.IndexFunc(a.scram[m], func(v *verifier) bool { return v.live(now) }); i >= 0 {
				all = append(all, SCRAMCredential{User: name, Mechanism: string(m), Iterations: a.scram[m][i].iterations})
			}
		}
	}
	return all
}
