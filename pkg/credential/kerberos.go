package credential

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/twmb/franz-go/pkg/sasl"
	krb "github.com/twmb/franz-go/pkg/sasl/kerberos"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/secret"
)

// kerberos makes a mechanism of a keytab.
func (k *Keeper) kerberos(m *material, s *resource.UpstreamSASL, mech *mechanism) {
	path := m.u.Metadata.Path(s.Krb5Conf)
	text := m.file("spec.sasl.krb5Conf", s.Krb5Conf)
	raw := m.resolve("spec.sasl.keytab", s.Keytab, secret.ResolveRaw).Reveal()
	if text == nil || raw == "" {
		return // reported
	}
	conf, err := config.NewFromString(string(text))
	// What it does not know it leaves out, and says so: that need not matter here.
	if _, unknown := err.(config.UnsupportedDirective); err != nil && !unknown { //nolint:errorlint // it is not wrapped
		m.problem("spec.sasl.krb5Conf", "%s: %v", path, err)
		return
	}
	name, realm, _ := strings.Cut(s.Principal, "@")
	if realm == "" {
		realm = conf.LibDefaults.DefaultRealm
	}
	if realm == "" {
		m.problem("spec.sasl.principal", "%q has no realm and %s no default_realm: write %s@REALM", s.Principal, path, name)
		return
	}
	mech.text = fmt.Sprintf("GSSAPI as %s@%s", name, realm)
	keys, err := parseKeytab([]byte(raw))
	if err != nil {
		m.problem("spec.sasl.keytab", "%v", err)
		return
	}
	if err := holds(keys, name, realm); err != nil {
		m.problem("spec.sasl.keytab", "%v", err)
		return
	}
	t := &tickets{name: name, realm: realm, conf: conf, keys: keys, service: s.ServiceName, failed: make(map[string]*failure)}
	mech.Mechanism, mech.refused, mech.close = t, t.doubt, t.close
}

// parseKeytab is keytab.Unmarshal, which panics on some files that are cut off.
func parseKeytab(raw []byte) (keys *keytab.Keytab, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the file is not a keytab, or is cut off")
		}
	}()
	keys = keytab.New()
	if err := keys.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("the file is not a keytab, or is cut off: %w", err)
	}
	return keys, nil
}

// holds looks for a key of the principal.
func holds(keys *keytab.Keytab, name, realm string) error {
	var others []string
	for _, e := range keys.Entries {
		principal := strings.Join(e.Principal.Components, "/")
		if principal == name && e.Principal.Realm == realm {
			return nil
		}
		if principal += "@" + e.Principal.Realm; !slices.Contains(others, principal) {
			others = append(others, principal)
		}
	}
	if len(others) == 0 {
		return errors.New("the keytab holds no key")
	}
	return fmt.Errorf("the keytab holds no key of %s@%s, but of %s", name, realm, strings.Join(others, ", "))
}

// tickets are those of one principal. The client has them renewed by itself.
type tickets struct {
	name, realm string
	conf        *config.Config
	keys        *keytab.Keytab
	service     string

	mu     sync.Mutex
	client *holding // nil: none yet
	closed bool
	failed map[string]*failure // by host: a KDC may know one broker and not the next
}

// failure is the last attempt, and when there may be another.
type failure struct {
	err     error
	backoff time.Duration
	again   time.Time
}

// holding is a client with those who use it: it ends when nobody does.
type holding struct {
	*client.Client
	made  time.Time
	users int
	done  bool // ends with its last user
}

func (t *tickets) Name() string { return "GSSAPI" }

// Authenticate asks the KDC if it has to. The library waits for a KDC as long as it
// likes; nobody else does.
func (t *tickets) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	h, err := t.hold(host)
	if err != nil {
		return nil, nil, err
	}
	type outcome struct {
		session sasl.Session
		first   []byte
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		auth := krb.Auth{Client: h.Client, Service: t.service, PersistAfterAuth: true}
		o.session, o.first, o.err = krb.Kerberos(func(context.Context) (krb.Auth, error) { return auth, nil }).Authenticate(ctx, host)
		if o.err != nil {
			o.err = fmt.Errorf("KDC of %s: %s", t.realm, brief(o.err.Error()))
		}
		t.release(h, host, o.err)
		done <- o
	}()
	select {
	case o := <-done:
		return o.session, o.first, o.err
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("KDC of %s: %w", t.realm, context.Cause(ctx))
	}
}

func (t *tickets) hold(host string) (*holding, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.New("another keytab is in use by now")
	}
	if f := t.failed[host]; f != nil {
		if wait := time.Until(f.again); wait > 0 {
			return nil, fmt.Errorf("next try in %v: %w", wait.Round(time.Millisecond), f.err)
		}
	}
	if t.client == nil {
		t.client = &holding{
			// Active Directory refuses the FAST that is asked for otherwise.
			Client: client.NewWithKeytab(t.name, t.realm, t.keys, t.conf, client.DisablePAFXFAST(true)),
			made:   time.Now(),
		}
	}
	t.client.users++
	return t.client, nil
}

func (t *tickets) release(h *holding, host string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.users--
	if err == nil {
		delete(t.failed, host)
	} else {
		f := t.failed[host]
		if f == nil {
			f = new(failure)
			t.failed[host] = f
		}
		f.err, f.backoff = err, min(max(2*f.backoff, firstRetry), lastRetry)
		f.again = time.Now().Add(f.backoff)
	}
	if h.done && h.users == 0 {
		go h.Destroy()
	}
}

// drop ends a client when nobody uses it any more. t.mu is held.
func (t *tickets) drop() {
	h := t.client
	if t.client = nil; h == nil {
		return
	}
	h.done = true
	if h.users == 0 {
		go h.Destroy()
	}
}

// doubt has all tickets asked for anew: the brokers' key may have changed.
func (t *tickets) doubt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.client != nil && time.Since(t.client.made) >= refusedAgain {
		t.drop()
	}
}

func (t *tickets) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.drop()
}
