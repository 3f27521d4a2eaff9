package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

func describeCommand(std stdio) *cobra.Command {
	var s scope
	var entries int
	cmd := &cobra.Command{
		Use:   "describe KIND NAME | KIND/NAME",
		Short: "Tell everything about one object",
		Long: `describe prints an object with its status, what refers to it, the secrets of a
service account (never what they are), and what was done to it last.`,
		Example: `  tollgate describe virtual-cluster acme-prod
  tollgate describe service-account/acme-prod/shipping`,
	}
	s.scopeFlags(cmd)
	cmd.Flags().IntVar(&entries, "audit", 10, "`number` of the last entries of the audit log to show; 0: none")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		key, err := s.one(args)
		if err != nil {
			return err
		}
		o, err := c.Get(ctx, key)
		if err != nil {
			return err
		}
		data, err := show.YAML(o.Raw, "status")
		if err != nil {
			return err
		}
		var b bytes.Buffer
		fmt.Fprintln(&b, key)
		b.WriteByte('\n')
		b.Write(data)
		if err := describeStatus(&b, o); err != nil {
			return err
		}
		if err := describeReferences(ctx, c, &b, o); err != nil {
			return err
		}
		if entries > 0 {
			if err := describeAudit(ctx, c, &b, key, entries); err != nil {
				return err
			}
		}
		_, err = b.WriteTo(std.out)
		return err
	})
}

// describeStatus prints what the server says of an object.
func describeStatus(w io.Writer, o *client.Object) error {
	var status map[string]json.RawMessage
	if err := o.Status(&status); err != nil {
		return err
	}
	delete(status, "secrets") // a table of their own
	if len(status) > 0 {
		data, err := json.Marshal(map[string]any{"status": status})
		if err != nil {
			return err
		}
		text, err := show.YAML(data)
		if err != nil {
			return err
		}
		fmt.Fprint(w, string(text))
	}
	if a, ok := o.Object.(*resource.ServiceAccount); !ok || a.Spec.Type != resource.Local {
		return nil
	}
	secrets, err := o.Secrets()
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\nSecrets:")
	if len(secrets) == 0 {
		fmt.Fprintf(w, "none: nobody can log in by it; tollgate secret issue %s/%s makes one\n", o.Meta().VirtualCluster, o.Meta().Name)
		return nil
	}
	return secretTable(w, secrets, time.Now())
}

// shownReferences is how many objects are named before the rest is only counted.
const shownReferences = 20

// describeReferences prints which objects need an object.
func describeReferences(ctx context.Context, c *client.Client, w io.Writer, o *client.Object) error {
	key := resource.KeyOf(o.Object)
	var in selection
	var kinds []string
	switch key.Kind {
	case resource.KindTenant:
		in.tenant = key.Name
		kinds = []string{resource.KindVirtualCluster, resource.KindTopicGrant, resource.KindBudget}
	case resource.KindUpstreamCluster: // aliases are within virtual clusters that name it too
		kinds = []string{resource.KindVirtualCluster, resource.KindTopicGrant}
	case resource.KindVirtualCluster:
		in.vc = key.Name
		kinds = []string{resource.KindAliasTopic, resource.KindServiceAccount, resource.KindACL, resource.KindPolicy}
	default:
		return nil
	}
	var names []string
	total := 0
	for _, name := range kinds {
		k, _ := resource.KindOf(name)
		for other, err := range in.list(ctx, c, k) {
			if err != nil {
				return fmt.Errorf("list %s: %w", k.Plural, err)
			}
			if !slices.ContainsFunc(resource.Dependencies(other.Object), func(d resource.Dependency) bool { return d.On == key }) {
				continue
			}
			if total++; total <= shownReferences {
				names = append(names, nameOf(resource.KeyOf(other.Object)))
			}
		}
	}
	fmt.Fprintln(w, "\nReferenced by:")
	if total == 0 {
		fmt.Fprintln(w, "nothing: it can be deleted")
	}
	for _, name := range names {
		fmt.Fprintln(w, show.Plain(name))
	}
	if total > len(names) {
		fmt.Fprintf(w, "and %d more\n", total-len(names))
	}
	return nil
}

// describeAudit prints what was done to an object last.
func describeAudit(ctx context.Context, c *client.Client, w io.Writer, key resource.Key, entries int) error {
	var rows [][]string
	for e, err := range c.Audit(ctx, client.AuditQuery{Key: key, PageSize: entries}) {
		if client.IsStatus(err, http.StatusForbidden, http.StatusNotFound) {
			return nil // not for this token
		}
		if err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		if e.Scope != key.Scope {
			continue // of another one with that name: without a scope all are asked for
		}
		rows = append(rows, []string{show.Time(e.Time), e.Actor, e.Action, e.Detail})
		if len(rows) == entries {
			break
		}
	}
	fmt.Fprintln(w, "\nAudit, the newest first:")
	if len(rows) == 0 {
		fmt.Fprintln(w, "nothing")
		return nil
	}
	return show.Table(w, []string{"TIME", "WHO", "WHAT", "DETAIL"}, rows)
}
