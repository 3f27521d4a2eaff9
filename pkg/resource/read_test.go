package resource

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever gets an object does not have the directory of its file: what can be said
// in a file is what the API takes.
func TestWhatIsReadHasNoRelativePaths(t *testing.T) {
	raw, err := os.ReadFile("../../docs/resources.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(raw), "```yaml\n")[1:]
	for i := range parts {
		parts[i], _, _ = strings.Cut(parts[i], "```")
	}
	text := strings.Join(parts, "---\n") + `
---
apiVersion: tollgate/v1
kind: VirtualCluster
metadata: {name: keys, tenant: acme}
spec:
  type: standard
  host: keys
  home: main
  authentication: {oauthbearer: [{issuer: a, audience: [b], jwksURL: "file:keys.json"}, {issuer: b, audience: [b], jwksURL: "file:///etc/keys.json"}]}
`
	ca := certificate(t)
	dir := write(t, map[string]string{"below/all.yaml": text, "below/ca.pem": ca, "below/acme-ca.pem": ca})
	var problems Problems
	objects := Read(dir, &problems)
	if len(problems) > 0 || len(objects) < 10 {
		t.Fatalf("%d objects, %v", len(objects), problems)
	}
	relative, brought := 0, 0
	for _, o := range objects {
		sent, err := Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		switch v := o.Object.(type) {
		case *UpstreamCluster:
			if v.Spec.TLS != nil && v.Spec.TLS.CA == ca && v.Spec.TLS.CAFile == "" {
				brought++
			}
		case *VirtualCluster:
			if m := v.Spec.Authentication.MTLS; m != nil && m.CA == ca && m.CAFile == "" {
				brought++
			}
		}
		relative += strings.Count(string(sent), filepath.Join(dir, "below"))
		var problems Problems
		Validate(Parse(sent, &problems), nil, testNow)
		for _, p := range problems {
			if strings.Contains(p.Message, "relative") {
				t.Errorf("%s: %s", KeyOf(o.Object), p)
			}
		}
	}
	if relative < 9 || brought != 3 {
		t.Errorf("%d paths below the directory of the file, want at least 9; %d certificates brought along, want 3", relative, brought)
	}
}

// certificate is one in PEM form.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestCertificatesInAnObject(t *testing.T) {
	spec := func(mtls string) string {
		return base + "apiVersion: tollgate/v1\nkind: VirtualCluster\nmetadata: {name: m, tenant: acme}\nspec: {type: standard, host: m, home: main, authentication: {mtls: {" + mtls + "}}}\n"
	}
	good, _ := json.Marshal(certificate(t))
	for _, tt := range []struct{ name, mtls, want string }{
		{"certificates", "ca: " + string(good), ""},
		{"beside a file", "caFile: /etc/ca.pem, ca: " + string(good), "mtls.caFile: has no meaning beside ca"},
		{"a key", `ca: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"`, "mtls.ca: holds no certificate"},
		{"a broken one", `ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"`, "mtls.ca: x509: "},
		{"nothing", `ca: ""`, "mtls.caFile: required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := load(t, spec(tt.mtls))
			if tt.want == "" && len(problems) > 0 || tt.want != "" && !strings.Contains(problems.Error(), tt.want) {
				t.Errorf("problems %v, want %q", problems, tt.want)
			}
		})
	}
}

func TestReadingIsNotJudging(t *testing.T) {
	var problems Problems
	objects := ReadText("stdin", "/base", []byte(`
{apiVersion: tollgate/v1, kind: VirtualCluster, metadata: {name: a, tenant: elsewhere}, spec: {type: later, host: a, home: elsewhere, authentication: {plain: {}}}}
---
{apiVersion: tollgate/v1, kind: ServiceAccount, metadata: {name: a, virtualCluster: elsewhere}, spec: {type: local, password: "file:a.secret"}}
`), &problems)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if vc := objects[0].Object.(*VirtualCluster); vc.Spec.Clusters != nil || vc.Spec.Topics.MaxPartitions != 0 {
		t.Errorf("filled in: %+v", vc.Spec)
	}
	if got := objects[1].Object.(*ServiceAccount).Spec.Password; got != "file:/base/a.secret" {
		t.Errorf("password %s", got)
	}
	problems = nil
	ReadText("stdin", "/base", []byte(`
apiVersion: tollgate/v1
kind: ServiceAccount
metadata: {name: a, virtualCluster: elsewhere}
spec: {type: local, password: hunter2}
---
apiVersion: tollgate/v1
kind: Tenant
metadata: {name: a}
spec: {colour: red}
`), &problems)
	if got := problems.Error(); len(problems) != 2 || !strings.Contains(got, "stdin:5: spec.password: must be a reference") ||
		!strings.Contains(got, "stdin:10: spec.colour: unknown field") || strings.Contains(got, "hunter2") {
		t.Errorf("problems:\n%s", got)
	}
}

func TestReadTakesAFileOfAnyName(t *testing.T) {
	dir := write(t, map[string]string{"tenant.json": `{"apiVersion": "tollgate/v1", "kind": "Tenant", "metadata": {"name": "a"}, "spec": {}}`})
	var problems Problems
	if objects := Read(filepath.Join(dir, "tenant.json"), &problems); len(objects) != 1 || len(problems) > 0 {
		t.Errorf("%d objects, %v", len(objects), problems)
	}
	if objects := Read(filepath.Join(dir, "absent.yaml"), &problems); len(objects) != 0 || len(problems) != 1 {
		t.Errorf("%d objects, %v", len(objects), problems)
	}
}
