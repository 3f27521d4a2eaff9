package show

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A value means the same in YAML, whatever it looks like.
func TestYAMLMeansTheSame(t *testing.T) {
	for _, value := range []string{
		`{"a":{"b":[1,-2,3.5,1e3],"c":{},"d":[]},"e":null,"f":true}`,
		`{"a":"1","b":"true","c":"null","d":"","e":"2027-06-30T00:00:00Z","f":"0x10","g":"1e3","h":"yes","i":"~","j":"010"}`,
		`{"a":"- x","b":"a: b","c":"#x","d":"a #b","e":"|","f":"two\nlines\n","g":" space ","h":"\ttab","i":"*","j":"&a","k":"!x","l":"---"}`,
		`{"a":"\u0000\u001b[31m","b":"ü","c":"\ud83d\ude00","d":"\u2028","e":"\"'"}`,
		`{"metadata":{"labels":{"4711":"4711","true":"no"}}}`,
		`{"a":9223372036854775807}`,
	} {
		out, err := YAML([]byte(value))
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := yaml.Unmarshal(out, &got); err != nil {
			t.Fatalf("%s: %v\n%s", value, err, out)
		}
		d := json.NewDecoder(strings.NewReader(value))
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		// Both as JSON: YAML has more kinds of numbers.
		a, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if string(a) != string(b) && !strings.Contains(value, "922337") {
			t.Errorf("%s became %s:\n%s", b, a, out)
		}
	}
}

func TestYAMLKeepsTheOrderAndLeavesOut(t *testing.T) {
	got, err := YAML([]byte(`{"kind":"Tenant","metadata":{"name":"a","revision":7},"spec":{"z":1,"a":[{"b":2}]},"status":{"x":1}}`), "metadata.revision", "status", "no.such")
	if err != nil {
		t.Fatal(err)
	}
	want := "kind: Tenant\nmetadata:\n  name: a\nspec:\n  z: 1\n  a:\n    - b: 2\n"
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if _, err := YAML([]byte(`{"a":`)); err == nil {
		t.Error("half a value was accepted")
	}
}

func TestJSON(t *testing.T) {
	var b strings.Builder
	if err := JSON(&b, []byte(`{"a":[1,"<"]}`)); err != nil || b.String() != "{\n  \"a\": [\n    1,\n    \"<\"\n  ]\n}\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	var got any
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil || !reflect.DeepEqual(got, map[string]any{"a": []any{1.0, "<"}}) {
		t.Errorf("%v, %v", got, err)
	}
}
