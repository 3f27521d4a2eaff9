package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/diff"
	"tollgate.internal/cmd/tollgate/internal/manifest"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

// readManifest reads files, directories and, as "-", the standard input.
func readManifest(std stdio, paths []string) (*manifest.Manifest, error) {
	if len(paths) == 0 {
		return nil, usagef("name files or directories: -f FILE, -f DIR, or -f - for the standard input")
	}
	var problems resource.Problems
	var written []*resource.Written
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			return nil, usagef("-f %s is there twice", path)
		}
		if path != "-" {
			if !isFile(path) {
				return nil, usagef("-f %s: there is no such file or directory", path)
			}
			written = append(written, resource.Read(path, &problems)...)
			continue
		}
		base, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(std.in)
		if err != nil {
			return nil, fmt.Errorf("read the standard input: %w", err)
		}
		written = append(written, resource.ReadText("stdin", base, data, &problems)...)
	}
	m := manifest.New(written)
	if len(problems) > 0 {
		problems.Sort()
		return nil, problems
	}
	if len(m.Written) == 0 {
		return nil, fmt.Errorf("%s: no objects: there is no *.yaml or *.yml file with a document in it", strings.Join(paths, ", "))
	}
	return m, nil
}

// applying is what apply and diff have in common.
type applying struct {
	files    []string
	prune    bool
	selector string
	output   string
	yes      bool
	wait     waiting
}

func (a *applying) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&a.files, "file", "f", nil, "`file` or directory to read; - is the standard input; repeatable")
	f.BoolVar(&a.prune, "prune", false, "delete what the selector selects and no file names")
	f.StringVarP(&a.selector, "selector", "l", "", "`labels` of what --prune may delete, such as team=payments")
}

func (a *applying) pruned() (string, error) {
	switch {
	case a.prune && strings.TrimSpace(a.selector) == "":
		return "", usagef("--prune needs a label selector, so that it deletes nothing that others made: --prune -l team=payments")
	case !a.prune && a.selector != "":
		return "", usagef("-l says what --prune may delete: add --prune, or leave it out")
	}
	return a.selector, nil
}

// waiting is how long to wait for the fleet.
type waiting struct {
	applied bool
	timeout time.Duration
}

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.applied, "wait", false, "return when every node has applied the change")
	cmd.Flags().DurationVar(&w.timeout, "wait-timeout", 30*time.Second, "`time` to wait for that")
}

func (w *waiting) time() time.Duration {
	if !w.applied {
		return 0
	}
	return w.timeout
}

func applyCommand(std stdio) *cobra.Command {
	var a applying
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f DIR|FILE|-",
		Short: "Make the control plane have what files say",
		Long: `apply creates and replaces objects so that they are as files say: all of them or,
when anything is wrong with one, none. Applied twice, they change nothing.

Objects that are in no file stay as they are, unless --prune is given: then those
that the label selector selects, and no file names, are deleted, after a question.

A service account may have its password beside it, as a reference: it is read
here and sent by itself, and does nothing when the account has it already. So are
certificates of CAs, by relative paths. Other paths are sent as absolute ones: every
proxy reads what they name on its own machine.

` + exitHelp,
		Example: `  tollgate apply -f examples/
  tollgate apply -f tenants/ --dry-run
  tollgate apply -f payments/ --prune -l team=payments --yes
  tollgate --context test export virtual-clusters | tollgate apply -f -`,
		Args: cobra.NoArgs,
	}
	a.flags(cmd)
	a.wait.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&dryRun, "dry-run", false, "print what would change, and change nothing")
	f.BoolVar(&a.yes, "yes", false, "do not ask before --prune deletes")
	outputFlag(cmd, &a.output, "", "json", "name")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, _ []string) error {
		selector, err := a.pruned()
		if err != nil {
			return err
		}
		m, err := readManifest(std, a.files)
		if err != nil {
			return err
		}
		if dryRun {
			planned, err := c.Apply(ctx, m.Objects(), selector, client.Change{DryRun: true})
			if err != nil {
				return m.Locate(err)
			}
			return a.report(std, planned, nil, true, len(m.Secrets))
		}
		if a.prune {
			planned, err := c.Apply(ctx, m.Objects(), selector, client.Change{DryRun: true})
			if err != nil {
				return m.Locate(err)
			}
			if err := a.confirmDeletes(std, planned); err != nil {
				return err
			}
		}
		applied, late := c.Apply(ctx, m.Objects(), selector, client.Change{Wait: a.wait.time()})
		if late != nil && !client.IsLate(late) {
			return m.Locate(late)
		}
		imported, err := importSecrets(ctx, c, m, a.wait.time())
		if client.IsLate(err) {
			late, err = err, nil
		}
		if err != nil {
			late, err = nil, fmt.Errorf("the objects were applied; of their secrets one was not, and none after it: %w", err)
		}
		return errors.Join(a.report(std, applied, imported, false, 0), err, late)
	})
}

// confirmDeletes names what a prune would delete, and asks.
func (a *applying) confirmDeletes(std stdio, planned *client.Applied) error {
	var names []string
	for _, r := range planned.Results {
		if r.Change == client.Deleted {
			names = append(names, nameOf(r.Key))
		}
	}
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		fmt.Fprintln(std.err, "  delete", name)
	}
	return confirm(std, a.yes, fmt.Sprintf("Delete %s that no file names?", count(len(names), "object")))
}

// importSecrets sends the secrets of accounts, and tells which the server did not have.
func importSecrets(ctx context.Context, c *client.Client, m *manifest.Manifest, wait time.Duration) (imported []resource.Key, late error) {
	for _, s := range m.Secrets {
		added, err := s.Import(ctx, c, wait)
		if client.IsLate(err) {
			late, err = err, nil
		}
		if err != nil {
			return imported, err
		}
		if added.Change == client.Created {
			imported = append(imported, resource.KeyOf(s.Account.Object))
		}
	}
	return imported, late
}

// report prints what was done or, of a dry run, what would be.
func (a *applying) report(std stdio, applied *client.Applied, imported []resource.Key, dryRun bool, secrets int) error {
	slices.SortStableFunc(applied.Results, func(x, y client.Result) int {
		// What is deleted goes in the opposite order, behind the rest.
		xGone, yGone := x.Change == client.Deleted, y.Change == client.Deleted
		switch {
		case xGone && yGone:
			return y.Key.Compare(x.Key)
		case xGone != yGone:
			return cmp.Compare(btoi(xGone), btoi(yGone))
		}
		return x.Key.Compare(y.Key)
	})
	switch a.output {
	case "json":
		type line struct {
			Kind   string `json:"kind"`
			Scope  string `json:"scope,omitempty"`
			Name   string `json:"name"`
			Change string `json:"change"`
		}
		answer := struct {
			DryRun          bool     `json:"dryRun,omitempty"`
			Revision        int64    `json:"revision,omitempty"`
			Results         []line   `json:"results"`
			ImportedSecrets []string `json:"importedSecrets,omitempty"`
		}{DryRun: dryRun, Revision: applied.Revision, Results: []line{}}
		for _, r := range applied.Results {
			answer.Results = append(answer.Results, line{r.Key.Kind, r.Key.Scope, r.Key.Name, r.Change})
		}
		for _, key := range imported {
			answer.ImportedSecrets = append(answer.ImportedSecrets, nameOf(key))
		}
		data, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		return show.JSON(std.out, data)
	case "name":
		for _, r := range applied.Results {
			fmt.Fprintln(std.out, nameOf(r.Key))
		}
		return nil
	}
	if dryRun {
		if err := printDiffs(std, applied); err != nil {
			return err
		}
	}
	counts := make(map[string]int)
	for _, r := range applied.Results {
		counts[r.Change]++
		if !dryRun && r.Change != client.Unchanged {
			fmt.Fprintln(std.out, r.Change, nameOf(r.Key))
		}
	}
	for _, key := range imported {
		fmt.Fprintln(std.out, "imported the secret of", nameOf(key))
	}
	if counts[client.Unchanged] == len(applied.Results) && len(imported) == 0 {
		fmt.Fprintf(std.out, "nothing changed: %s as the files say\n", isOrAre(len(applied.Results)))
	} else {
		var parts []string
		for _, change := range []string{client.Created, client.Replaced, client.Deleted, client.Unchanged} {
			if n := counts[change]; n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, change))
			}
		}
		prefix := ""
		if dryRun {
			prefix = "dry run: "
		}
		fmt.Fprintf(std.out, "%s%s: %s\n", prefix, count(len(applied.Results), "object"), strings.Join(parts, ", "))
	}
	for _, r := range applied.Results {
		// So it is also when somebody forgot to say of which one.
		if r.Change != client.Unchanged && r.Key.Kind == resource.KindPolicy && r.Key.Scope == "" {
			fmt.Fprintf(std.out, "%s is a policy of all virtual clusters: its metadata names none\n", nameOf(r.Key))
		}
	}
	if dryRun && secrets > 0 {
		fmt.Fprintf(std.out, "%s of accounts would be imported, unless the accounts have them\n", count(secrets, "secret"))
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func isOrAre(n int) string {
	if n == 1 {
		return "1 object is"
	}
	return fmt.Sprintf("%d objects are", n)
}

func diffCommand(std stdio) *cobra.Command {
	var a applying
	cmd := &cobra.Command{
		Use:   "diff -f DIR|FILE|-",
		Short: "Show what apply would change",
		Long: `diff prints, as diff -u does, how the control plane's objects differ from what they
would be after apply, and changes nothing. It ends with 0 when there is no
difference, with 3 when there is one, and with the codes of apply when something
is wrong. Secrets are not compared: only their owners know them.

` + exitHelp,
		Example: `  tollgate diff -f examples/
  tollgate diff -f payments/ --prune -l team=payments`,
		Args: cobra.NoArgs,
	}
	a.flags(cmd)
	return operation(cmd, std, func(ctx context.Context, c *client.Client, _ []string) error {
		selector, err := a.pruned()
		if err != nil {
			return err
		}
		m, err := readManifest(std, a.files)
		if err != nil {
			return err
		}
		planned, err := c.Apply(ctx, m.Objects(), selector, client.Change{DryRun: true})
		if err != nil {
			return m.Locate(err)
		}
		if err := printDiffs(std, planned); err != nil {
			return err
		}
		if slices.ContainsFunc(planned.Results, func(r client.Result) bool { return r.Change != client.Unchanged }) {
			return errDifferent
		}
		return nil
	})
}

// printDiffs prints how objects change.
func printDiffs(std stdio, planned *client.Applied) error {
	for _, r := range planned.Results {
		if r.Change == client.Unchanged {
			continue
		}
		before, err := text(r.Before)
		if err != nil {
			return err
		}
		after, err := text(r.After)
		if err != nil {
			return err
		}
		oldName, newName := nameOf(r.Key), nameOf(r.Key)
		if r.Before == nil {
			oldName = "/dev/null"
		}
		if r.After == nil {
			newName = "/dev/null"
		}
		if before == after { // what changed cannot be seen by this token
			fmt.Fprintf(std.out, "%s %s\n", r.Change, nameOf(r.Key))
			continue
		}
		fmt.Fprint(std.out, diff.Unified(oldName, newName, before, after, colourful(std.out)))
	}
	return nil
}

// text is an object as it is compared and exported: what its owner said of it.
func text(o *client.Object) (string, error) {
	if o == nil {
		return "", nil
	}
	data, err := show.YAML(o.Raw, "metadata.revision", "status")
	return string(data), err
}

// outputFlag adds -o with a closed set of words; the first is the default.
func outputFlag(cmd *cobra.Command, into *string, list ...string) {
	named := slices.DeleteFunc(slices.Clone(list), func(w string) bool { return w == "" })
	*into = list[0]
	cmd.Flags().VarP(&oneOf{into, list}, "output", "o", strings.Join(named, ", "))
	complete(cmd, "output", words(named...))
}

// oneOf is the value of a flag that is one of a few words.
type oneOf struct {
	value *string
	words []string
}

func (w *oneOf) String() string { return *w.value }
func (w *oneOf) Type() string   { return "format" }

func (w *oneOf) Set(s string) error {
	if !slices.Contains(w.words, s) {
		return fmt.Errorf("there are %s", strings.TrimPrefix(strings.Join(w.words, ", "), ", "))
	}
	*w.value = s
	return nil
}

// absolute is a path that means the same from wherever it is used.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}
