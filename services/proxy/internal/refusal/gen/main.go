// Command gen writes docs/errors.md from the catalogue.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"tollgate.internal/services/proxy/internal/refusal"
)

func main() {
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out string) error {
	var b bytes.Buffer
	if err := refusal.WriteMarkdown(&b); err != nil {
		return err
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}
