package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate.internal/pkg/resource"
)

const (
	home = "home"
	acme = "acme-prod"
)

// testKeys is a pair that never changes, so that seeds of the fuzz tests stay good.
const testKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
`

func testSigner(t testing.TB) *Signer {
	t.Helper()
	s, err := ParseSigner([]byte(testKey))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ofACME is a virtual cluster with one object of each kind.
func ofACME() *Bundle {
	vc := func(name string) resource.Metadata { return resource.Metadata{Name: name, VirtualCluster: acme} }
	until := time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)
	return &Bundle{
		Deployment: "eu", ID: ID{VirtualCluster, acme}, Revision: 57,
		Objects: Objects{
			&resource.Tenant{Metadata: resource.Metadata{Name: "acme", Labels: map[string]string{"b": "2", "a": "1"}}, Spec: resource.TenantSpec{State: resource.TenantActive}},
			&resource.VirtualCluster{Metadata: resource.Metadata{Name: acme, Tenant: "acme"}, Spec: resource.VirtualClusterSpec{
				Type: resource.Partner, Host: "acme", CustomHosts: []string{"Kafka.ACME.example"}, Home: home, Clusters: []string{home},
			}},
			&resource.TopicGrant{Metadata: resource.Metadata{Name: "orders", Tenant: "acme"}, Spec: resource.TopicGrantSpec{Cluster: home, Topic: resource.TopicSelector{Name: "shop.orders"}, Until: until}},
			&resource.AliasTopic{Metadata: vc("orders"), Spec: resource.AliasTopicSpec{Cluster: home, Topic: "shop.orders"}},
			&resource.AliasTopic{Metadata: vc("prices"), Spec: resource.AliasTopicSpec{Cluster: home, Topic: "shop.prices"}},
			&resource.ServiceAccount{Metadata: vc("shipping"), Spec: resource.ServiceAccountSpec{Type: resource.External, ExternalNames: []string{"CN=shipping"}}},
			&resource.ACL{Metadata: vc("reads"), Spec: resource.ACLSpec{Principal: "User:shipping", Host: "*", Operation: "READ", Permission: "ALLOW"}},
		},
	}
}

func ofHome() *Bundle {
	return &Bundle{Deployment: "eu", ID: ID{UpstreamCluster, home}, Revision: 3, Objects: Objects{
		&resource.UpstreamCluster{Metadata: resource.Metadata{Name: home}, Spec: resource.UpstreamClusterSpec{Bootstrap: []string{"b-1:9092"}}},
	}}
}

func tombstone() *Bundle {
	return &Bundle{Deployment: "eu", ID: ID{VirtualCluster, acme}, Revision: 58, Deleted: true}
}

func seal(t testing.TB, b *Bundle) []byte {
	t.Helper()
	data, err := testSigner(t).SealBundle(b)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWhatIsSealedIsOpened(t *testing.T) {
	keys := testSigner(t).Keyring()
	for _, b := range []*Bundle{ofACME(), ofHome(), tombstone()} {
		got, err := keys.Open(seal(t, b), "eu", b.ID)
		if err != nil {
			t.Errorf("Open(%v): %v", b.ID, err)
			continue
		}
		if !reflect.DeepEqual(got, b) {
			t.Errorf("Open(%v) = %+v, want %+v", b.ID, got, b)
		}
	}
}

// Two portals compile at the same time, from lists in the order of their stores.
func TestTheSameObjectsGiveTheSameBytes(t *testing.T) {
	want := seal(t, ofACME())
	for range 20 {
		b := ofACME()
		slices.Reverse(b.Objects)
		if got := seal(t, b); !bytes.Equal(got, want) {
			t.Fatal("objects in another order give other bytes")
		}
	}
}

// A portal that publishes everything anew seals a bundle for each virtual cluster, on
// every core: what each takes is small, and none has anything of another.
func TestManyAreSealedAtOnce(t *testing.T) {
	const each = 100
	s := testSigner(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range each {
				b := ofACME()
				b.Revision = int64(1 + each*worker + i)
				data, err := s.SealBundle(b)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := s.Keyring().Open(data, b.Deployment, b.ID); err != nil || got.Revision != b.Revision {
					t.Errorf("bundle of revision %d: %v, %v", b.Revision, got, err)
				}
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&after)
	// A compressor of one's own is 1.2 MB. Under the race detector, pools forget some.
	if n := (after.TotalAlloc - before.TotalAlloc) / (4 * each); n > 600<<10 {
		t.Errorf("%d bytes are allocated for each bundle", n)
	}
}

func TestASetIsMadeOfABundle(t *testing.T) {
	s := ofACME().Set()
	aliases, accounts, acls := s.OfVirtualCluster(acme)
	if len(aliases) != 2 || len(accounts) != 1 || len(acls) != 1 || len(s.GrantsOf("acme")) != 1 || s.Tenants["acme"] == nil || s.VirtualClusters[acme] == nil {
		t.Errorf("the set is %+v", s)
	}
	if u := ofHome().Upstream(); u == nil || u.Metadata.Name != home {
		t.Errorf("Upstream = %v", u)
	}
	if u := ofACME().Upstream(); u != nil {
		t.Errorf("Upstream of a virtual cluster = %v", u)
	}
}

func TestHostsAreClaimedByTheBundleAlone(t *testing.T) {
	b := ofACME()
	for host, want := range map[string]bool{
		"acme": true, "kafka.acme.example": true, "Kafka.ACME.example": false, // asked for in small letters
		"": false, "other": false, "acme.gw.example.com": false, "b0-acme": false,
	} {
		if got := b.Claims(host); got != want {
			t.Errorf("Claims(%q) = %v, want %v", host, got, want)
		}
	}
	if ofHome().Claims("") || tombstone().Claims("acme") {
		t.Error("a host is claimed by what is no virtual cluster, or by a tombstone")
	}
}

func TestWhatIsNotTheBundleAskedForIsRefused(t *testing.T) {
	s, keys := testSigner(t), testSigner(t).Keyring()
	whole := seal(t, ofACME())
	other, err := NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.SealBundle(ofACME())
	if err != nil {
		t.Fatal(err)
	}
	// An impostor signs with a key of its own, under the id of ours.
	impostor := *other
	impostor.id = s.id
	forged, err := impostor.SealBundle(ofACME())
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int) []byte {
		data := bytes.Clone(whole)
		data[at] ^= 1
		return data
	}
	body := func(text string) []byte {
		packed, err := deflate([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		data, err := s.Seal(ForBundle, packed)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	raw := func(purpose Purpose, format uint16, body []byte) []byte {
		data, err := s.seal(purpose, format, body)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	older, newer := bytes.Clone(whole), bytes.Clone(whole)
	binary.BigEndian.PutUint16(older[len(magic):], 0)
	binary.BigEndian.PutUint16(newer[len(magic):], Format+1)
	packed, err := deflate([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	id := ID{VirtualCluster, acme}
	for _, c := range []struct {
		name       string
		data       []byte
		deployment string
		id         ID
		want       Reason
		text       string
	}{
		{"nothing", nil, "eu", id, Truncated, "0 bytes are left"},
		{"half of the magic", whole[:2], "eu", id, Truncated, "2 bytes"},
		{"half of the header", whole[:40], "eu", id, Truncated, "40 bytes"},
		{"the last byte is missing", whole[:len(whole)-1], "eu", id, Truncated, "where it says"},
		{"a byte more", append(bytes.Clone(whole), 0), "eu", id, Truncated, "where it says"},
		{"a page of something", []byte("<html>"), "eu", id, NotSealed, "TGSL"},
		{"more than anybody signs", make([]byte, MaxBytes+1), "eu", id, TooLarge, "the most"},
		{"another's key", theirs, "eu", id, UnknownKey, other.ID().String()},
		{"another's key under our id", forged, "eu", id, Forged, "signature"},
		{"a bit of the body", changed(len(whole) - 1), "eu", id, Forged, "signature"},
		{"a bit of the signature", changed(len(magic) + 10), "eu", id, Forged, "signature"},
		{"a bit of the key id", changed(len(magic) + 2), "eu", id, UnknownKey, "trusted"},
		{"a format that was turned up", newer, "eu", id, Forged, "signature"},
		{"a format that was turned down", older, "eu", id, Forged, "signature"},
		{"a newer format, truly", raw(ForBundle, Format+1, []byte("anything")), "eu", id, Newer, "format 3"},
		{"no format", raw(ForBundle, 0, packed), "eu", id, Malformed, "format 0"},
		{"a head in the place of a bundle", raw(ForHead, Format, packed), "eu", id, Forged, "of this bundle"},
		{"another deployment", whole, "us", id, Foreign, `"eu", and this is "us"`},
		{"under another's name", whole, "eu", ID{VirtualCluster, "other"}, Misplaced, "VirtualCluster acme-prod, and kept in the place of VirtualCluster other"},
		{"under another kind", whole, "eu", ID{UpstreamCluster, acme}, Misplaced, "UpstreamCluster"},
		{"not compressed", raw(ForBundle, Format, []byte("{}")), "eu", id, Malformed, "compressed"},
		{"compressed, and something behind", raw(ForBundle, Format, append(bytes.Clone(packed), 1)), "eu", id, Malformed, "behind"},
		{"compressed, and cut", raw(ForBundle, Format, packed[:len(packed)-2]), "eu", id, Malformed, "too early"},
		{"no JSON", body("x"), "eu", id, Malformed, "decode"},
		{"an object that is none", body(`{"deployment":"eu","kind":"VirtualCluster","name":"acme-prod","revision":1,"objects":[{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":[]}]}`), "eu", id, Malformed, "Tenant"},
		{"nothing in it", body(`{"deployment":"eu","kind":"VirtualCluster","name":"acme-prod","revision":1}`), "eu", id, Malformed, "not in its own bundle"},
		{"no revision", body(`{"deployment":"eu","kind":"VirtualCluster","name":"acme-prod","deleted":true}`), "eu", id, Malformed, "revision 0"},
		{"a bomb", raw(ForBundle, Format, bomb(t)), "eu", id, TooLarge, "when decompressed"},
	} {
		b, err := keys.Open(c.data, c.deployment, c.id)
		if b != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: Open = %v, %v, want %s with %q in it", c.name, b, err, c.want, c.text)
		}
		if r, ok := ReasonOf(fmt.Errorf("load: %w", err)); !ok || r != c.want || !slices.Contains(Reasons(), r) {
			t.Errorf("%s: ReasonOf = %q, %v, want %s", c.name, r, ok, c.want)
		}
	}
}

func bomb(t *testing.T) []byte {
	packed, err := deflate(make([]byte, MaxPlainBytes+1))
	if err != nil || len(packed) > MaxBytes/2 {
		t.Fatalf("a bomb of %d bytes, %v", len(packed), err)
	}
	return packed
}

func TestABundleHoldsNothingOfOthers(t *testing.T) {
	other := func(name string) resource.Metadata {
		return resource.Metadata{Name: name, Tenant: "other", VirtualCluster: "other"}
	}
	for _, o := range []resource.Object{
		&resource.Tenant{Metadata: other("other")},
		&resource.VirtualCluster{Metadata: other("other")},
		&resource.UpstreamCluster{Metadata: resource.Metadata{Name: home}},
		&resource.TopicGrant{Metadata: other("x")},
		&resource.AliasTopic{Metadata: other("x")},
		&resource.ServiceAccount{Metadata: other("x")},
		&resource.ACL{Metadata: other("x")},
	} {
		b := ofACME()
		b.Objects = append(b.Objects, o)
		if _, err := testSigner(t).SealBundle(b); !errors.Is(err, Malformed) || !strings.Contains(err.Error(), "none of its business") {
			t.Errorf("with a %T of others: %v", o, err)
		}
		if _, upstream := o.(*resource.UpstreamCluster); upstream {
			continue
		}
		b = ofHome()
		b.Objects = append(b.Objects, o)
		if _, err := testSigner(t).SealBundle(b); !errors.Is(err, Malformed) {
			t.Errorf("an upstream cluster with a %T: %v", o, err)
		}
	}
	for text, b := range map[string]*Bundle{
		"twice":                 {Deployment: "eu", ID: ID{UpstreamCluster, home}, Revision: 1, Objects: append(ofHome().Objects, ofHome().Objects...)},
		"without its Tenant":    {Deployment: "eu", ID: ID{VirtualCluster, acme}, Revision: 1, Objects: ofACME().Objects[1:]},
		"not in its own bundle": {Deployment: "eu", ID: ID{VirtualCluster, "x"}, Revision: 1, Objects: ofACME().Objects},
		"has objects":           {Deployment: "eu", ID: ID{UpstreamCluster, home}, Revision: 1, Deleted: true, Objects: ofHome().Objects},
		"no deployment":         {ID: ID{UpstreamCluster, home}, Revision: 1, Objects: ofHome().Objects},
		"unknown kind":          {Deployment: "eu", ID: ID{"Tenant", home}, Revision: 1},
		"without a name":        {Deployment: "eu", ID: ID{VirtualCluster, ""}, Revision: 1},
		"positive":              {Deployment: "eu", ID: ID{UpstreamCluster, home}, Revision: -1, Objects: ofHome().Objects},
	} {
		if _, err := testSigner(t).SealBundle(b); !errors.Is(err, Malformed) || !strings.Contains(err.Error(), text) {
			t.Errorf("SealBundle: %v, want %q", err, text)
		}
	}
}

// A later version may add fields and kinds that older proxies need not know.
func TestWhatIsNotKnownIsPassedOver(t *testing.T) {
	packed, err := deflate([]byte(`{"deployment":"eu","kind":"UpstreamCluster","name":"home","revision":9,"colour":"red","objects":[
		{"apiVersion":"tollgate/v1","kind":"UpstreamCluster","metadata":{"name":"home","mood":"good"},"spec":{"bootstrap":["b:1"],"shape":{"round":true}},"status":{}},
		{"apiVersion":"tollgate/v2","kind":"Weather","metadata":7}]}`))
	if err != nil {
		t.Fatal(err)
	}
	data, err := testSigner(t).Seal(ForBundle, packed)
	if err != nil {
		t.Fatal(err)
	}
	b, err := testSigner(t).Keyring().Open(data, "eu", ID{UpstreamCluster, home})
	if err != nil || len(b.Objects) != 1 || b.Upstream().Spec.Bootstrap[0] != "b:1" {
		t.Errorf("Open = %+v, %v", b, err)
	}
}

func TestTooLargeToBeRead(t *testing.T) {
	b := ofACME()
	b.Objects[0].(*resource.Tenant).Spec.DisplayName = strings.Repeat("x", MaxPlainBytes)
	if _, err := testSigner(t).SealBundle(b); !errors.Is(err, TooLarge) {
		t.Errorf("SealBundle of 64 MiB: %v", err)
	}
	if _, err := testSigner(t).Seal(ForHead, make([]byte, MaxBytes)); !errors.Is(err, TooLarge) {
		t.Errorf("Seal of 8 MiB: %v", err)
	}
}

func TestKeys(t *testing.T) {
	s, err := NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	private, err := s.Private()
	if err != nil {
		t.Fatal(err)
	}
	public, err := s.Public()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseSigner(private)
	if err != nil || again.ID() != s.ID() {
		t.Errorf("ParseSigner = %v, %v, want %v", again, err, s)
	}
	old, err := testSigner(t).Public()
	if err != nil {
		t.Fatal(err)
	}
	both, err := ParseKeyring(slices.Concat(old, []byte("\n"), public, public))
	if err != nil || len(both) != 2 {
		t.Fatalf("ParseKeyring = %v, %v, want two keys", both, err)
	}
	for _, signer := range []*Signer{s, testSigner(t)} {
		data, err := signer.SealBundle(ofHome())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := both.Open(data, "eu", ofHome().ID); err != nil {
			t.Errorf("signed by %v, with keys %v: %v", signer, both, err)
		}
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", s, s, s), fmt.Sprintf("%v %#v", *s, *s), fmt.Sprint(struct{ S *Signer }{s})} {
		if seed := (*s.private)[:8]; strings.Contains(text, strings.Trim(fmt.Sprintf("%d", seed), "[]")) || strings.Contains(text, fmt.Sprintf("%x", seed)) {
			t.Errorf("the key is printed: %s", text)
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	s := testSigner(t)
	public, err := s.Public()
	if err != nil {
		t.Fatal(err)
	}
	const rsa = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEvSVpAbVEPhQv8StVYzGMmqNpCHvk\nZAkFo1GcnmmTCMWqCPmHRsfZy3L3QgW7HRTWe2pUFZlB6y9HcYIiE8YBEA==\n-----END PUBLIC KEY-----\n"
	for name, c := range map[string]struct{ text, want string }{
		"nothing":          {"", "not PEM"},
		"words":            {"hunter2", "not PEM"},
		"a public key":     {string(public), "PUBLIC KEY"},
		"two keys":         {testKey + testKey, "one key signs"},
		"a damaged key":    {strings.Replace(testKey, "MC4", "MD4", 1), "PKCS#8"},
		"another's format": {strings.ReplaceAll(testKey, "PRIVATE KEY", "EC PRIVATE KEY"), "EC PRIVATE KEY"},
	} {
		if _, err := ParseSigner([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseSigner of %s: %v, want %q", name, err, c.want)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":       {" \n", "none"},
		"a private key": {testKey, "belongs to the portal"},
		"rubbish":       {string(public) + "hunter2", "not PEM"},
		"another kind":  {rsa, "public keys"},
		"a certificate": {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "CERTIFICATE"},
	} {
		if _, err := ParseKeyring([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseKeyring of %s: %v, want %q", name, err, c.want)
		}
	}
}

var update = flag.Bool("update", false, "write the seeds of the fuzz tests")

// The seeds are committed, so that what one version sealed is what the next opens.
func TestSeedsAreOpened(t *testing.T) {
	keys := testSigner(t).Keyring()
	for name, b := range map[string]*Bundle{"acme": ofACME(), "home": ofHome(), "tombstone": tombstone()} {
		path := filepath.Join("testdata", "fuzz", "FuzzOpen", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", seal(t, b)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var quoted string
		if _, err := fmt.Sscanf(strings.TrimSuffix(string(text), ")\n"), "go test fuzz v1\n[]byte(%q", &quoted); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		got, err := keys.Open([]byte(quoted), "eu", b.ID)
		if err != nil || !reflect.DeepEqual(got, b) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, b)
		}
	}
}

// FuzzOpen opens what a store may hold, and what a portal gone wrong may sign: the
// input as it is, and as a body with a good signature.
func FuzzOpen(f *testing.F) {
	s := testSigner(f)
	keys := s.Keyring()
	f.Add([]byte(`{"deployment":"eu","kind":"VirtualCluster","name":"acme-prod","revision":1,"objects":[{"apiVersion":"tollgate/v1","kind":"VirtualCluster","metadata":null,"spec":null},{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{},"spec":{}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		inputs := [][]byte{data}
		if packed, err := deflate(data); err == nil && len(data) < 1<<16 {
			for _, body := range [][]byte{data, packed} {
				if sealed, err := s.Seal(ForBundle, body); err == nil {
					inputs = append(inputs, sealed)
				}
			}
		}
		for _, in := range inputs {
			for _, id := range []ID{{VirtualCluster, acme}, {UpstreamCluster, home}} {
				b, err := keys.Open(in, "eu", id)
				if err != nil {
					if _, ok := ReasonOf(err); !ok {
						t.Fatalf("no refusal: %v", err)
					}
					continue
				}
				if b.ID != id || b.Deployment != "eu" || b.Revision <= 0 {
					t.Fatalf("opened %+v", b)
				}
				b.Hosts()
				b.Set()
				again, err := s.SealBundle(b)
				if err != nil {
					t.Fatalf("what was opened cannot be sealed: %v", err)
				}
				if _, err := keys.Open(again, "eu", id); err != nil {
					t.Fatalf("what was sealed again cannot be opened: %v", err)
				}
			}
		}
	})
}

// Each purpose has formats of its own: what cannot be read of one says nothing of another.
func TestFormatsAreCountedApart(t *testing.T) {
	s, err := NewSigner()
	if err != nil {
		t.Fatal(err)
	}
	for _, purpose := range []Purpose{ForBundle, ForHead, ForCommand} {
		newest := purpose.format()
		for format, want := range map[uint16]error{newest: nil, newest + 1: Newer, 0: Malformed} {
			data, err := s.seal(purpose, format, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Keyring().Unseal(purpose, data); !errors.Is(err, want) {
				t.Errorf("a %s of format %d: %v, want %v", purpose, format, err, want)
			}
		}
	}
	if _, err := s.Seal("letter", []byte("x")); err == nil {
		t.Error("a purpose that there is not is sealed")
	}
}
