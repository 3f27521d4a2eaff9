package refusal

import (
	"fmt"
	"io"
	"strings"
)

// WriteMarkdown writes the catalogue as docs/errors.md.
func WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`<!-- Generated from services/proxy/internal/refusal/catalogue.go by "make generate". Do not edit. -->

# What Tollgate refuses

Every refusal is logged with its id (` + "`refusal=TG-…`" + `) and counted in metrics under it. A client sees only what the
column *client sees* says: an error code of Kafka, a closed connection, or nothing. Nothing about other tenants, physical names or
brokers is ever told to a client; it is in the log line, under ` + "`err`" + `.

| id | refused | client sees |
|---|---|---|
`)
	for _, r := range All() {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", r.ID, strings.ToLower(r.ID), r.When, sees(r))
	}
	for _, r := range All() {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n- **Client sees:** %s\n- **Cause:** %s\n- **Cure:** %s\n",
			r.ID, upper(r.When), sees(r), r.Cause, r.Cure)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func sees(r *Refusal) string {
	if r.Unseen {
		return "nothing"
	}
	if r.Kafka == nil {
		return "connection closed"
	}
	return fmt.Sprintf("`%s` (%d)", r.Kafka.Message, r.Kafka.Code)
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
