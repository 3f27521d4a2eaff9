package api

import (
	"strings"
	"testing"
	"time"
)

func TestReadJSON(t *testing.T) {
	for _, c := range []struct{ name, in, want, detail string }{
		{"an object", `{"a": [1, {"b": null}, "x"], "c": {}}`, `{"a":[1,{"b":null},"x"],"c":{}}`, ""},
		{"doubled names stay", `{"a":1,"a":2}`, `{"a":1,"a":2}`, ""},
		{"numbers keep their digits", `[1e400, 0.10, 12345678901234567890]`, `[1e400,0.10,12345678901234567890]`, ""},
		{"escapes that YAML does not know", `{"u":"http:\/\/x \ud83d\ude00\n<&>"}`, "{\"u\":\"http://x 😀\\n<&>\"}", ""},
		{"several values", "{}\n{\"a\":1} []", `{}|{"a":1}|[]`, ""},
		{"empty lists in lists", `[[],[[]],{}]`, `[[],[[]],{}]`, ""},
		{"cut off", `{"a":[1,`, "", "ends in the middle"},
		{"a value too many", `{"a" 1}`, "", "not JSON, at byte"},
		{"YAML", `a: b`, "", "not JSON, at byte"},
		{"a comma too many", `[1,]`, "", "not JSON"},
		{"the deepest", strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), ""},
		{"too deep", strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), "", "deeper than 64"},
		{"too deep and never closed", strings.Repeat(`{"a":`, 1<<17), "", "deeper than 64"},
	} {
		values, p := readJSON([]byte(c.in))
		var got []string
		for _, v := range values {
			got = append(got, string(v))
		}
		switch {
		case (p != nil) != (c.detail != "") || p != nil && (!strings.Contains(p.Detail, c.detail) || p.Status != 400):
			t.Errorf("%s: %v, want a problem with %q", c.name, p, c.detail)
		case p == nil && strings.Join(got, "|") != c.want:
			t.Errorf("%s: %s, want %s", c.name, strings.Join(got, "|"), c.want)
		}
	}
}

func TestMergePatch(t *testing.T) {
	for _, c := range []struct{ original, patch, want string }{ // the examples of RFC 7396, appendix A, that are about objects
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"n":12345678901234567890}`, `{"a":1.10}`, `{"a":1.10,"n":12345678901234567890}`},
	} {
		got, p := merged([]byte(c.original), []byte(c.patch))
		if p != nil || string(got) != c.want {
			t.Errorf("%s with %s = %s, %v, want %s", c.original, c.patch, got, p, c.want)
		}
	}
	for patch, detail := range map[string]string{`[1]`: "a merge patch is one", `null`: "a merge patch is one", `{} {}`: "a merge patch is one", `{"a":{"b":1,"c":2,"b":3}}`: "mistakes", `{`: "not JSON"} {
		if _, p := merged([]byte(`{}`), []byte(patch)); p == nil || !strings.Contains(p.Detail, detail) {
			t.Errorf("%s: %v, want a problem with %q", patch, p, detail)
		}
	}
	if _, p := merged([]byte(`{}`), []byte(`{"a":{"b":1,"c":2,"b":3}}`)); p == nil || len(p.Errors) != 1 || p.Errors[0].Field != "a.b" {
		t.Errorf("doubled: %+v, want a.b named", p)
	}
}

func TestDocuments(t *testing.T) {
	const tenant = "apiVersion: tollgate/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {displayName: \"---\\nx\"}\n"
	for _, c := range []struct {
		name string
		body body
		want int
		err  string
	}{
		{"one", body{[]byte(tenant), true}, 1, ""},
		{"two", body{[]byte("# first\n---\n" + tenant + "--- # second\n" + tenant + "---\n"), true}, 2, ""},
		{"windows", body{[]byte(strings.ReplaceAll("---\n"+tenant+"---\n"+tenant, "\n", "\r\n")), true}, 2, ""},
		{"an end without a beginning", body{[]byte(tenant + "...\n"), true}, 1, ""},
		{"a kind nobody knows", body{[]byte(tenant + "---\napiVersion: tollgate/v1\nkind: Nope\n"), true}, 0, "kind: unknown kind"},
		{"a syntax error and its line", body{[]byte(tenant + "---\na: b\n c: d\n"), true}, 0, "line 7"},
		{"a list of JSON", body{[]byte(`[{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"a"},"spec":{}},{"apiVersion":"tollgate/v1","kind":"Tenant","metadata":{"name":"b"},"spec":{}}]`), false}, 2, ""},
		{"an empty list", body{[]byte(`[]`), false}, 0, ""},
		{"no object", body{[]byte(`"x"`), false}, 0, "must be a mapping"},
		{"JSON that ends early", body{[]byte(`{"apiVersion":`), false}, 0, "ends in the middle"},
		{"null", body{[]byte(`null`), false}, 0, ""},
	} {
		documents, p := c.body.documents("")
		if len(documents) != c.want || (p != nil) != (c.err != "") || p != nil && !strings.Contains(describe(p), c.err) {
			t.Errorf("%s: %d documents, %s, want %d, %q", c.name, len(documents), describe(p), c.want, c.err)
		}
	}
}

func describe(p *Problem) string {
	if p == nil {
		return "no problem"
	}
	text := p.Detail
	for _, e := range p.Errors {
		text += "\n" + e.Object + " " + e.Field + ": " + e.Message
	}
	return text
}

// What nests without end, or repeats without end, is refused or read in good time:
// what takes longer than its length would be seen at a sixteenth of the limit.
func TestHostileYAML(t *testing.T) {
	const head = "apiVersion: tollgate/v1\nkind: Tenant\nmetadata: {name: a}\nspec: "
	for _, text := range []string{"[", "{", "{a: ", "- ", "? ", "a,", "&a ", "*a ", "!a ", "'", "\n", "# x\n", "\x00", "\xff", "\"\\x00\","} {
		for _, begin := range []string{"", head, head + "["} {
			data := []byte(begin + strings.Repeat(text, (maxObjectBytes/16)/len(text)))
			start := time.Now()
			_, p := body{data, true}.documents("")
			_, single := body{data, true}.one("")
			if took := time.Since(start); took > 10*time.Second { // the race detector and a busy machine take most of it
				t.Errorf("%q after %q took %v", text, begin, took)
			}
			if p != nil && p.Status >= 500 || single != nil && single.Status >= 500 {
				t.Errorf("%q after %q: %v, %v", text, begin, p, single)
			}
		}
	}
}
