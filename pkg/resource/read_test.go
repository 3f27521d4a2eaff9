package resource

import (
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
	dir := write(t, map[string]string{"below/all.yaml": text})
	var problems Problems
	objects := Read(dir, &problems)
	if len(problems) > 0 || len(objects) < 10 {
		t.Fatalf("%d objects, %v", len(objects), problems)
	}
	relative := 0
	for _, o := range objects {
		sent, err := Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
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
	if relative < 12 {
		t.Errorf("%d paths below the directory of the file, want at least 12", relative)
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
