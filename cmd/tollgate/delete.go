package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/pkg/resource"
)

func deleteCommand(std stdio) *cobra.Command {
	var s scope
	var files []string
	var yes, ignore bool
	var wait waiting
	cmd := &cobra.Command{
		Use:   "delete KIND NAME… | KIND/NAME… | -f DIR|FILE|-",
		Short: "Delete objects",
		Long: `delete deletes the objects that are named, or that files name, after a question.
What others need is not deleted: the server says which those are. Of several
objects those go first that others are in; the first that cannot be deleted
ends it, and what was deleted until then stays deleted.

` + exitHelp,
		Example: `  tollgate delete alias-topic acme-prod/orders
  tollgate delete acl --vc acme-prod shipping-reads-orders shipping-writes-orders --yes
  tollgate delete -f examples/ --ignore-not-found`,
	}
	s.scopeFlags(cmd)
	wait.flags(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&files, "file", "f", nil, "`file` or directory with the objects to delete; - is the standard input; repeatable")
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.BoolVar(&ignore, "ignore-not-found", false, "an object that is not there is no error")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		var keys []resource.Key
		switch {
		case len(files) > 0 && len(args) > 0:
			return usagef("name objects, or files with -f: not both")
		case len(files) > 0:
			m, err := readManifest(std, files)
			if err != nil {
				return err
			}
			for _, o := range m.Written {
				keys = append(keys, resource.KeyOf(o.Object))
			}
		default:
			t, err := s.targets(args)
			if err != nil {
				return err
			}
			if len(t.keys) == 0 {
				return usagef("name the objects: all of a kind are deleted by no command at once")
			}
			keys = t.keys
		}
		slices.SortFunc(keys, func(a, b resource.Key) int { return b.Compare(a) })
		keys = slices.Compact(keys)
		if !yes {
			for _, key := range keys {
				fmt.Fprintln(std.err, "  delete", nameOf(key))
			}
			if err := confirm(std, yes, fmt.Sprintf("Delete %s?", count(len(keys), "object"))); err != nil {
				return err
			}
		}
		var problems []error
		for i, key := range keys {
			var change client.Change
			if i == len(keys)-1 {
				change.Wait = wait.time() // when this one is applied, so are those before it
			}
			err := c.Delete(ctx, key, change)
			switch {
			case client.IsNotFound(err):
				if !ignore {
					problems = append(problems, err)
				}
				continue
			case err != nil && !client.IsLate(err):
				return errors.Join(append(problems, err)...)
			case err != nil:
				problems = append(problems, err)
			}
			fmt.Fprintln(std.out, "deleted", nameOf(key))
		}
		return errors.Join(problems...)
	})
}
