package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/pkg/resource"
)

func exportCommand(std stdio) *cobra.Command {
	var s selection
	var dir string
	cmd := &cobra.Command{
		Use:   "export [KIND[,KIND]… | KIND/NAME…]",
		Short: "Print objects as files for apply",
		Long: `export prints objects so that apply makes them anew, here or on another control
plane: without revisions and status, in an order in which they can be made.

It has no secrets. What upstream clusters log in with are references, which every
proxy resolves where it runs. What service accounts log in with nobody has any
more: issue new secrets, or import the passwords that their owners know.`,
		Example: `  tollgate export > everything.yaml
  tollgate export --tenant acme -l plan=gold
  tollgate export vc,alias-topics,acls --dir backup/
  tollgate --context old export | tollgate --context new apply -f -`,
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` to write to, one file for each kind, in place of printing")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) == 0 {
			args = []string{"all"}
		}
		t, err := s.targets(args)
		if err != nil {
			return err
		}
		found, err := s.find(ctx, c, t)
		if err != nil {
			return err
		}
		byKind := make(map[string][]*client.Object)
		accounts, hidden := 0, false
		for _, o := range found {
			if a, ok := o.Object.(*resource.AliasTopic); ok && a.Spec.Topic == "" {
				hidden = true
			}
			byKind[o.Kind()] = append(byKind[o.Kind()], o)
			if a, ok := o.Object.(*resource.ServiceAccount); ok && a.Spec.Type == resource.Local {
				accounts++
			}
		}
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(std.out, "# %s of %s, %s\n", count(len(found), "object"), c.Server(), time.Now().UTC().Format(time.RFC3339))
			fmt.Fprintln(std.out, withoutSecrets(accounts))
		}
		first := true
		for _, k := range resource.Kinds {
			objects := byKind[k.Name]
			if len(objects) == 0 {
				continue
			}
			out := std.out
			var file *os.File
			if dir != "" {
				path := filepath.Join(dir, k.Plural+".yaml")
				// What is there may be somebody's only copy.
				if file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644); err != nil {
					return fmt.Errorf("%w: choose a directory without it", err)
				}
				out, first = file, true
			}
			err := exportTo(out, objects, &first)
			if file != nil {
				if closed := file.Close(); err == nil {
					err = closed
				}
				if err == nil {
					fmt.Fprintf(std.out, "%s: %s\n", file.Name(), count(len(objects), "object"))
				}
			}
			if err != nil {
				return err
			}
		}
		if hidden {
			fmt.Fprintln(std.err, "warning: this token does not see the clusters and topics behind the aliases, which apply needs: export with a token of role ops")
		}
		if dir != "" || !terminal(std.out) {
			fmt.Fprintln(std.err, withoutSecrets(accounts)[2:])
		}
		return nil
	})
}

func withoutSecrets(accounts int) string {
	if accounts == 0 {
		return "# without secrets"
	}
	return fmt.Sprintf("# without secrets: %s of type local can log in only when they get one: tollgate secret issue, or secret import", count(accounts, "service account"))
}

func exportTo(w io.Writer, objects []*client.Object, first *bool) error {
	for _, o := range objects {
		data, err := text(o)
		if err != nil {
			return err
		}
		if !*first {
			data = "---\n" + data
		}
		*first = false
		if _, err := io.WriteString(w, data); err != nil {
			return err
		}
	}
	return nil
}
