package refusal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

const docs = "../../../../docs/errors.md"

func TestTheCatalogueIsComplete(t *testing.T) {
	id := regexp.MustCompile(`^TG-[A-Z]+-[0-9]{3}$`)
	var ids []string
	for _, r := range All() {
		ids = append(ids, r.ID)
		if !id.MatchString(r.ID) {
			t.Errorf("id %q does not match %s", r.ID, id)
		}
		if r.When == "" || r.Cause == "" || r.Cure == "" {
			t.Errorf("%s: when, cause or cure is missing", r.ID)
		}
		if strings.ContainsAny(r.When+r.Cause+r.Cure, "|\n") {
			t.Errorf("%s: a text would break the table", r.ID)
		}
		if strings.HasSuffix(r.When, ".") || !strings.HasSuffix(r.Cause, ".") || !strings.HasSuffix(r.Cure, ".") {
			t.Errorf("%s: when is a phrase; cause and cure are sentences", r.ID)
		}
		if r.Kafka != nil && r.Kafka != kerr.TypedErrorForCode(r.Kafka.Code) {
			t.Errorf("%s: %v is not one of Kafka's errors", r.ID, r.Kafka)
		}
	}
	if !slices.IsSorted(ids) {
		t.Errorf("ids are not sorted: %v", ids)
	}
	if unique := slices.Compact(slices.Clone(ids)); len(unique) != len(ids) {
		t.Errorf("%d ids, %d of them different", len(ids), len(unique))
	}
}

// A refusal that is declared and not in All would be missing in docs/errors.md.
func TestEveryRefusalOfTheFileIsInAll(t *testing.T) {
	var listed []string
	ast.Inspect(parseCatalogue(t), func(n ast.Node) bool {
		if n, ok := n.(*ast.ReturnStmt); ok {
			for _, e := range n.Results[0].(*ast.CompositeLit).Elts {
				listed = append(listed, e.(*ast.Ident).Name)
			}
		}
		return true
	})
	if declared := declaredRefusals(t); !slices.Equal(declared, listed) {
		t.Errorf("declared %v\nlisted   %v", declared, listed)
	}
}

func parseCatalogue(t *testing.T) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "catalogue.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// declaredRefusals are the names in the catalogue's file.
func declaredRefusals(t *testing.T) (names []string) {
	t.Helper()
	ast.Inspect(parseCatalogue(t), func(n ast.Node) bool {
		if n, ok := n.(*ast.ValueSpec); ok {
			for _, name := range n.Names {
				names = append(names, name.Name)
			}
		}
		return true
	})
	return names
}

func TestTheDocumentationIsCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := WriteMarkdown(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(docs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error(`docs/errors.md is not what the catalogue says: run "make generate"`)
	}
}

func TestWhatAClientSees(t *testing.T) {
	cause := errors.New("dial 10.0.0.7: connection refused")
	for _, tc := range []struct {
		name   string
		err    error
		code   int16
		text   string
		id     string
		closes bool
	}{
		{"a refusal is its own error", TopicUnknown, 3, kerr.UnknownTopicOrPartition.Description, TopicUnknown.ID, false},
		{"the cause stays here", BrokerUnavailable.With(cause), 6, kerr.NotLeaderForPartition.Description, BrokerUnavailable.ID, false},
		{"a wrapped refusal is found", fmt.Errorf("fetch: %w", TopicUnknown.With(cause)), 3, kerr.UnknownTopicOrPartition.Description, TopicUnknown.ID, false},
		{"a text meant for the client is told", TooManyTopics.Tell("at most %d topics", 7), 44, "at most 7 topics", TooManyTopics.ID, false},
		{"the outer refusal explains the inner one", GrantMissing.With(TopicNotAuthorized), 3, kerr.UnknownTopicOrPartition.Description, GrantMissing.ID, false},
		{"an error nobody catalogued tells nothing", cause, -1, kerr.UnknownServerError.Description, Internal.ID, false},
		{"a closed connection has no code of its own", ServerNameUnknown.With(cause), -1, kerr.UnknownServerError.Description, ServerNameUnknown.ID, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Code(tc.err); got != tc.code {
				t.Errorf("Code(%v) = %d, want %d", tc.err, got, tc.code)
			}
			if got := Text(tc.err); got == nil || *got != tc.text {
				t.Errorf("Text(%v) = %v, want %q", tc.err, got, tc.text)
			}
			if got := ID(tc.err); got != tc.id {
				t.Errorf("ID(%v) = %s, want %s", tc.err, got, tc.id)
			}
			if got := Closes(tc.err); got != tc.closes {
				t.Errorf("Closes(%v) = %t, want %t", tc.err, got, tc.closes)
			}
		})
	}
	if Code(nil) != 0 || Text(nil) != nil || ID(nil) != "" {
		t.Errorf("no error: Code %d, Text %v, ID %q", Code(nil), Text(nil), ID(nil))
	}
	if !errors.Is(BrokerUnavailable.With(cause), BrokerUnavailable) || !errors.Is(BrokerUnavailable.With(cause), cause) {
		t.Error("errors.Is finds not both the refusal and its cause")
	}
}

func TestAPlainRefusalCostsNothing(t *testing.T) {
	var err error = TopicNotAuthorized
	if n := testing.AllocsPerRun(100, func() { _ = Code(err) }); n != 0 {
		t.Errorf("Code of a refusal allocates %v times", n)
	}
}

func TestALogLineCarriesTheID(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	Log(context.Background(), log, slog.LevelWarn, "request refused", TopicUnknown.Errorf("topic %q", "orders"), "request", "Fetch")
	for _, want := range []string{"level=WARN", `msg="request refused"`, "refusal=" + TopicUnknown.ID, `topic \"orders\"`, "request=Fetch"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the line lacks %s: %s", want, b.String())
		}
	}
	b.Reset()
	Log(context.Background(), log, slog.LevelDebug, "request refused", TopicUnknown)
	if b.Len() != 0 {
		t.Errorf("a line below the level was written: %s", b.String())
	}
}
