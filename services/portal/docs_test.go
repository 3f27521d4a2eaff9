package portal_test

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const manual = "../../docs/api.md"

var exchange = regexp.MustCompile("(?s)```http\n(.*?)```")

func TestTheExchangesOfTheManual(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	ops := run(t, configOn(t))
	ops.populate()
	all := exchange.FindAllStringSubmatch(string(text), -1)
	if len(all) < 8 {
		t.Fatalf("%d exchanges, want 8", len(all))
	}
	for _, m := range all {
		asked, answered, ok := strings.Cut(m[1], "\nHTTP/1.1 ")
		if !ok {
			t.Errorf("no answer in\n%s", m[1])
			continue
		}
		head, body, _ := strings.Cut(asked, "\n\n")
		line, headers, _ := strings.Cut(head, "\n")
		method, path, _ := strings.Cut(line, " ")
		status, err := strconv.Atoi(answered[:3])
		if err != nil || !strings.HasPrefix(answered[4:], http.StatusText(status)) {
			t.Errorf("%q is no status", answered)
		}
		a := ops.want(status, method, path, strings.TrimSpace(body), strings.FieldsFunc(headers, func(r rune) bool { return r == '\n' })...)
		for header := range strings.Lines(answered[strings.IndexByte(answered, '\n')+1:]) {
			name, value, ok := strings.Cut(strings.TrimSpace(header), ": ")
			if got := a.header.Get(name); ok && (got == "" || value != "…" && got != value) {
				t.Errorf("%s %s: %s: %q, want %q", method, path, name, got, value)
			}
		}
	}
}

var variable = regexp.MustCompile(`TOLLGATE_PORTAL_[A-Z_]+[A-Z]`)

func TestTheManualHasEveryVariable(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("config.go")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, m := range regexp.MustCompile(`get\("([A-Z_]+)"`).FindAllStringSubmatch(string(code), -1) {
		known["TOLLGATE_PORTAL_"+m[1]] = true
	}
	told := make(map[string]bool)
	for _, name := range variable.FindAllString(string(text), -1) {
		told[name] = true
		if !known[name] {
			t.Errorf("%s is told of, and nothing reads it", name)
		}
	}
	for name := range known {
		if !told[name] {
			t.Errorf("%s is read, and not told of", name)
		}
	}
}
