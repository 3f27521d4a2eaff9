package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

func editCommand(std stdio) *cobra.Command {
	var s scope
	var wait waiting
	cmd := &cobra.Command{
		Use:   "edit KIND NAME | KIND/NAME",
		Short: "Change an object in an editor",
		Long: `edit opens an object in the editor of VISUAL or EDITOR (vi, if neither is set), and
sends what was saved. What the server refuses is opened again with its reasons on
top. When somebody else changed the object meanwhile, both changes are kept if
they are of different fields; otherwise it is opened again, with theirs on top. Saved
as it was opened, nothing is sent, and what was typed stays in a file that is named.`,
		Example: `  tollgate edit virtual-cluster acme-prod
  EDITOR="code --wait" tollgate edit tenant/acme`,
	}
	s.scopeFlags(cmd)
	wait.flags(cmd)
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		key, err := s.one(args)
		if err != nil {
			return err
		}
		o, err := c.Get(ctx, key)
		if err != nil {
			return err
		}
		e := &editing{client: c, std: std, key: key, base: o, wait: wait}
		return e.run(ctx)
	})
}

// editing is one object on its way through an editor:
//
//	open --saved as it was--> nothing is sent
//	open --saved--> send --accepted--> done
//	 '<--refused, or both changed the same--'
//
// Whatever ends it otherwise leaves the file with what was typed.
type editing struct {
	client *client.Client
	std    stdio
	key    resource.Key
	base   *client.Object // what the change is made to
	wait   waiting

	file string
	late error // the change is kept, which not every node knows yet
}

func (e *editing) run(ctx context.Context) error {
	if err := e.loop(ctx); err != nil {
		return err
	}
	return e.late
}

func (e *editing) loop(ctx context.Context) (err error) {
	original, err := text(e.base)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "tollgate-*.yaml") // 0600
	if err != nil {
		return err
	}
	e.file = f.Name()
	if err := f.Close(); err != nil {
		return err
	}
	typed, notes := original, []string(nil)
	defer func() {
		if err == nil || typed == original {
			os.Remove(e.file)
			return
		}
		err = fmt.Errorf("%w\nwhat was typed is in %s", err, e.file)
	}()
	for {
		opened := e.header(notes) + typed
		if err := os.WriteFile(e.file, []byte(opened), 0o600); err != nil {
			return err
		}
		if err := e.editor(ctx); err != nil {
			return err
		}
		saved, err := os.ReadFile(e.file)
		if err != nil {
			return err
		}
		typed = uncommented(string(saved))
		switch {
		case strings.TrimSpace(typed) == "", notes == nil && typed == original:
			typed = original
			fmt.Fprintln(e.std.out, "nothing changed")
			return nil
		case string(saved) == opened:
			return fmt.Errorf("saved as it was opened, so nothing was sent: %s", strings.Join(notes, "; "))
		}
		if notes, err = e.send(ctx, &typed); err != nil || notes == nil {
			return err
		}
	}
}

// header is what stands above the text, as comments.
func (e *editing) header(notes []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: saved as it is, nothing changes. Lines that begin with # are passed over.\n", e.key)
	for _, note := range notes {
		for line := range strings.SplitSeq(note, "\n") {
			fmt.Fprintf(&b, "# %s\n", line)
		}
	}
	return b.String()
}

// uncommented is a text without the comments above it.
func uncommented(s string) string {
	for strings.HasPrefix(s, "#") {
		_, s, _ = strings.Cut(s, "\n")
	}
	return s
}

func (e *editing) editor(ctx context.Context) error {
	name := os.Getenv("VISUAL")
	if name == "" {
		name = os.Getenv("EDITOR")
	}
	if name == "" {
		name = "vi"
	}
	// As git does it: the variable may hold arguments.
	cmd := exec.CommandContext(ctx, "sh", "-c", name+` "$@"`, name, e.file)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.std.in, e.std.out, e.std.err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("editor %s: %w", name, err)
	}
	return nil
}

// send sends what was typed. It returns notes when it is to be opened again; typed
// may then be something else than it was.
func (e *editing) send(ctx context.Context, typed *string) (notes []string, err error) {
	for {
		var problems resource.Problems
		base, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		written := resource.ReadText("", base, []byte(*typed), &problems)
		switch {
		case len(problems) > 0:
		case len(written) != 1:
			problems = resource.Problems{{Message: fmt.Sprintf("there are %d objects, and one is edited", len(written))}}
		case resource.KeyOf(written[0].Object) != e.key:
			problems = resource.Problems{{Message: fmt.Sprintf("this is %s: an object keeps its kind and its name; apply makes others", resource.KeyOf(written[0].Object))}}
		}
		if len(problems) > 0 {
			for _, p := range problems {
				p.Line = 0 // the comments above would shift it
				notes = append(notes, p.String())
			}
			return notes, nil
		}
		o := written[0].Object
		if o.Meta().Revision != 0 {
			return []string{"metadata.revision: leave it out: edit knows which one it changes"}, nil
		}
		after, err := e.client.Put(ctx, o, client.Change{Revision: e.base.Meta().Revision, Wait: e.wait.time()})
		if err == nil || client.IsLate(err) {
			if after.Meta().Revision == e.base.Meta().Revision {
				fmt.Fprintln(e.std.out, "nothing changed")
			} else {
				fmt.Fprintln(e.std.out, client.Replaced, nameOf(e.key))
			}
			e.late = err
			return nil, nil
		}
		if client.IsStatus(err, http.StatusConflict, http.StatusPreconditionFailed) {
			newest, getErr := e.client.Get(ctx, e.key)
			if getErr != nil {
				return nil, errors.Join(err, getErr)
			}
			if newest.Meta().Revision != e.base.Meta().Revision {
				merged, clashes, mergeErr := e.merge(*typed, newest)
				if mergeErr != nil {
					return nil, errors.Join(err, mergeErr)
				}
				e.base, *typed = newest, merged
				if len(clashes) == 0 {
					fmt.Fprintln(e.std.err, "somebody else changed other fields meanwhile: both changes are kept")
					continue
				}
				return append([]string{"Somebody else changed the same fields meanwhile. To replace what they wrote, save this without these lines:"}, clashes...), nil
			}
		}
		no, ok := errors.AsType[*client.Refusal](err)
		if !ok || no.Status < 400 || no.Status > 499 || client.IsStatus(err, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests) {
			return nil, err
		}
		return []string{no.Error()}, nil
	}
}

// merge puts what was typed on top of what somebody else made of the base. What
// both changed differently is a clash, and stays as it was typed.
func (e *editing) merge(typed string, newest *client.Object) (merged string, clashes []string, err error) {
	values := make([]any, 3)
	base, err := text(e.base)
	if err != nil {
		return "", nil, err
	}
	theirs, err := text(newest)
	if err != nil {
		return "", nil, err
	}
	for i, t := range []string{base, typed, theirs} {
		if err := yaml.Unmarshal([]byte(t), &values[i]); err != nil {
			return "", nil, err
		}
	}
	m := merging{}
	value := m.merge("", values[0], values[1], values[2])
	data, err := json.Marshal(value)
	if err != nil {
		return "", nil, err
	}
	out, err := show.YAML(data)
	return string(out), m.clashes, err
}

type merging struct{ clashes []string }

// absent is a field that is not there; null is one that is.
type absent struct{}

func (m *merging) merge(path string, base, mine, theirs any) any {
	switch {
	case reflect.DeepEqual(mine, theirs), reflect.DeepEqual(theirs, base):
		return mine
	case reflect.DeepEqual(mine, base):
		return theirs
	}
	b, _ := base.(map[string]any)
	x, okMine := mine.(map[string]any)
	y, okTheirs := theirs.(map[string]any)
	if !okMine || !okTheirs {
		m.clashes = append(m.clashes, "  "+path+": "+oneLine(theirs))
		return mine
	}
	field := func(of map[string]any, name string) any {
		if v, ok := of[name]; ok {
			return v
		}
		return absent{}
	}
	names := slices.Collect(maps.Keys(x))
	for name := range y {
		if _, ok := x[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := make(map[string]any)
	for _, name := range names {
		at := strings.TrimPrefix(path+"."+name, ".")
		if v := m.merge(at, field(b, name), field(x, name), field(y, name)); v != any(absent{}) {
			out[name] = v
		}
	}
	return out
}

// oneLine is a value in a comment.
func oneLine(v any) string {
	if v == any(absent{}) {
		return "(taken away)"
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}
