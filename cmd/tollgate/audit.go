package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/diff"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

func auditCommand(std stdio) *cobra.Command {
	var s scope
	var q client.AuditQuery
	var since time.Duration
	var from, to, output string
	var limit int
	var changes bool
	cmd := &cobra.Command{
		Use:   "audit [KIND | KIND NAME | KIND/NAME]",
		Short: "Tell who changed what, when and from where",
		Long: `audit prints the log of changes, the newest last. -o json prints one entry a line, with
what was there before and after; secrets are in neither.`,
		Example: `  tollgate audit
  tollgate audit virtual-cluster/acme-prod --diff
  tollgate audit --tenant acme --since 24h -o json > audit.jsonl`,
	}
	s.scopeFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&q.Actor, "actor", "", "only what this `token` or user did")
	f.StringVar(&q.Action, "action", "", "only this `action`: create, replace, delete, approve-grant, issue-secret, …")
	f.DurationVar(&since, "since", 0, "only what is younger than this `time`, such as 24h")
	f.StringVar(&from, "from", "", "only from this `time` on, such as 2027-06-30T00:00:00Z")
	f.StringVar(&to, "to", "", "only what was before this `time`")
	f.IntVarP(&limit, "limit", "n", 50, "the last so `many` entries; 0: all")
	f.BoolVar(&changes, "diff", false, "print how objects changed")
	outputFlag(cmd, &output, "table", "json")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) > 0 {
			t, err := s.targets(args)
			if err != nil {
				return err
			}
			switch {
			case len(t.keys) == 1:
				q.Key = t.keys[0]
			case len(t.kinds) == 1 && len(t.keys) == 0:
				q.Key = resource.Key{Kind: t.kinds[0].Name, Scope: s.of(t.kinds[0])}
			default:
				return usagef("name one object, or one kind")
			}
		} else if s.vc != "" {
			q.Key.Scope = s.vc
		}
		if q.Key.Scope == "" || q.Key.Scope != s.tenant {
			q.Tenant = s.tenant
		}
		// Without a scope all of that name are asked for: policies of all virtual clusters have none.
		another := func(e *client.Entry) bool { return q.Key.Name != "" && e.Scope != q.Key.Scope }
		for _, t := range []struct {
			flag, text string
			into       *time.Time
		}{{"--from", from, &q.From}, {"--to", to, &q.To}} {
			if t.text == "" {
				continue
			}
			var err error
			if *t.into, err = time.Parse(time.RFC3339, t.text); err != nil {
				return usagef("%s %s: write a time with its zone, such as 2027-06-30T00:00:00Z", t.flag, t.text)
			}
		}
		if since > 0 {
			q.From = time.Now().Add(-since)
		}
		print := func(e *client.Entry) error { return printEntry(std, e, output, changes) }
		if limit <= 0 {
			q.Oldest = true
			for e, err := range c.Audit(ctx, q) {
				if err != nil {
					return err
				}
				if another(e) {
					continue
				}
				if err := print(e); err != nil {
					return err
				}
			}
			return nil
		}
		q.PageSize = min(limit, 1000)
		var entries []*client.Entry
		for e, err := range c.Audit(ctx, q) {
			if err != nil {
				return err
			}
			if another(e) {
				continue
			}
			if entries = append(entries, e); len(entries) == limit {
				break
			}
		}
		for _, e := range slices.Backward(entries) {
			if err := print(e); err != nil {
				return err
			}
		}
		return nil
	})
}

func printEntry(std stdio, e *client.Entry, output string, changes bool) error {
	if output == "json" {
		_, err := fmt.Fprintf(std.out, "%s\n", e.Raw)
		return err
	}
	key := resource.Key{Kind: e.Kind, Scope: e.Scope, Name: e.Name}
	name := key.Name
	if _, known := resource.KindOf(e.Kind); known {
		name = nameOf(key)
	} else if e.Kind != "" {
		name = e.Kind + "/" + e.Name
	}
	parts := []string{show.Time(e.Time), e.Actor, e.Action, name}
	if e.Address != "" {
		parts[1] += "@" + e.Address
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	for i := range parts {
		parts[i] = show.Plain(parts[i])
	}
	fmt.Fprintln(std.out, strings.Join(parts, "  "))
	if !changes || len(e.Before)+len(e.After) == 0 {
		return nil
	}
	var texts [2]string
	for i, document := range [][]byte{e.Before, e.After} {
		if len(document) == 0 {
			continue
		}
		data, err := show.YAML(document, "metadata.revision")
		if err != nil {
			return err
		}
		texts[i] = string(data)
	}
	fmt.Fprint(std.out, diff.Unified("before", "after", texts[0], texts[1], colourful(std.out)))
	return nil
}
