package resource

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// What the documentation shows is what loads, and every field there is stands in it.
func TestTheDocumentationIsTrue(t *testing.T) {
	raw, err := os.ReadFile("../../docs/resources.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(raw), -1) {
		blocks = append(blocks, m[1])
	}
	all := strings.Join(blocks, "---\n")
	set, err := LoadDir(write(t, map[string]string{
		"all.yaml": all, "ca.pem": "", "gateway.pem": "", "gateway.key": "", "acme-ca.pem": "", "main.secret": "x", "shipping.secret": "x",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.VirtualClusters) != 2 || len(set.ServiceAccounts) != 3 {
		t.Errorf("%d virtual clusters and %d accounts, want 2 and 3", len(set.VirtualClusters), len(set.ServiceAccounts))
	}
	for _, kind := range []any{Tenant{}, UpstreamCluster{}, VirtualCluster{}, TopicGrant{}, AliasTopic{}, ServiceAccount{}, ACL{}, Policy{}, PriceBook{}, Budget{}} {
		for _, name := range specFields(reflect.TypeOf(kind)) {
			if !regexp.MustCompile(`\b` + name + `:`).MatchString(all) {
				t.Errorf("%T: field %s is not in the documentation", kind, name)
			}
		}
	}
}

// specFields are the names of all fields below a kind's spec.
func specFields(t reflect.Type) (names []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return specFields(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "" || name == "-" || name == "metadata" {
				continue
			}
			names = append(append(names, name), specFields(f.Type)...)
		}
	}
	return names
}
