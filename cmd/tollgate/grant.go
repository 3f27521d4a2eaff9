package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

func grantCommand(std stdio) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "grant COMMAND",
		Short: "Ask to be lent topics, and decide who is",
		Long: `A tenant sees topics that it was lent by a topic grant. It asks for one, and those who
run the gateway approve, or refuse and say why. Until then nothing is lent:

  tollgate grant request returns --tenant acme --reason "we ship what comes back"
  tollgate grant requests
  tollgate grant approve acme/ID --cluster main --topic shop.returns.v3

Grants themselves are objects: tollgate get topic-grants.`,
	}, std, requestGrantCommand(std), listRequestsCommand(std), approveGrantCommand(std), refuseGrantCommand(std), withdrawGrantCommand(std))
}

// requestArgument is for commands whose argument is a request: TENANT/ID, or ID with
// --tenant.
type requestArgument struct{ tenant string }

func (r *requestArgument) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.tenant, "tenant", "", "`tenant` whose request it is")
	complete(cmd, "tenant", namesOf(resource.KindTenant))
	cmd.ValidArgsFunction = r.completeRequests
}

func (r *requestArgument) read(args []string) (tenant, id string, err error) {
	tenant, id, scoped := strings.Cut(args[0], "/")
	if !scoped {
		tenant, id = r.tenant, args[0]
	}
	if tenant == "" || id == "" {
		return "", "", usagef("request %q: say whose it is: TENANT/%s or --tenant", args[0], id)
	}
	return tenant, id, nil
}

func (r *requestArgument) completeRequests(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return ask(cmd, func(ctx context.Context, c *client.Client) (names []string) {
		for q, err := range c.GrantRequests(ctx, r.tenant, "open") {
			if err != nil {
				return names
			}
			if r.tenant != "" {
				names = append(names, q.ID)
			} else {
				names = append(names, q.Tenant+"/"+q.ID)
			}
		}
		return names
	}), cobra.ShellCompDirectiveNoFileComp
}

func requestGrantCommand(std stdio) *cobra.Command {
	var e expiry
	var ask client.NewGrantRequest
	var tenant, output string
	var prefix, write bool
	cmd := &cobra.Command{
		Use:   "request TOPIC --tenant TENANT --reason TEXT",
		Short: "Ask to be lent a topic",
		Long: `request asks those who run the gateway to lend a tenant a topic. TOPIC is the name that
the tenant was told; nobody looks whether there is such a topic, and what is lent may
be called otherwise. The same again while it is open is the same request.`,
		Example: `  tollgate grant request returns --tenant acme --reason "we ship what comes back"
  tollgate grant request shop. --prefix --write --in 2160h --tenant acme --reason "the new shop"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&tenant, "tenant", "", "`tenant` that asks")
	f.StringVar(&ask.Reason, "reason", "", "`why`, for those who decide")
	f.BoolVar(&prefix, "prefix", false, "all topics whose names begin so")
	f.BoolVar(&write, "write", false, "to read and to write it; otherwise to read it")
	e.flags(cmd, "what is lent")
	outputFlag(cmd, &output, "", "json", "name")
	complete(cmd, "tenant", namesOf(resource.KindTenant))
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		switch {
		case tenant == "":
			return usagef("--tenant says who asks")
		case strings.TrimSpace(ask.Reason) == "":
			return usagef("--reason says why, for those who decide")
		}
		ask.Topic, ask.Access = resource.TopicSelector{Name: args[0], Pattern: resource.Literal}, resource.ReadOnly
		if prefix {
			ask.Topic.Pattern = resource.Prefixed
		}
		if write {
			ask.Access = resource.ReadWrite
		}
		var err error
		if ask.Until, err = e.time(); err != nil {
			return err
		}
		r, err := c.RequestGrant(ctx, tenant, ask)
		if err != nil {
			return err
		}
		switch output {
		case "json":
			return printJSON(std, r)
		case "name":
			fmt.Fprintln(std.out, requestName(r))
			return nil
		}
		fmt.Fprintf(std.out, "asked for %s as request %s\n", topicText(r.Topic), requestName(r))
		return nil
	})
}

// requestName is what the other commands take.
func requestName(r *client.GrantRequest) string { return r.Tenant + "/" + r.ID }

// topicText is what a selector selects, for people.
func topicText(t resource.TopicSelector) string {
	if t.Pattern == resource.Prefixed {
		return t.Name + "*"
	}
	return t.Name
}

func listRequestsCommand(std stdio) *cobra.Command {
	var tenant, output string
	states := []string{"open", "approved", "refused", "withdrawn", "all"}
	cmd := &cobra.Command{
		Use:   "requests [open|approved|refused|withdrawn|all]",
		Short: "List what tenants ask for, those first that wait the longest",
		Long:  `requests lists those that are open; with a word, those that were decided so, or all.`,
		Example: `  tollgate grant requests
  tollgate grant requests all --tenant acme -o wide`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp),
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of this `tenant`")
	outputFlag(cmd, &output, "table", "wide", "json", "name")
	complete(cmd, "tenant", namesOf(resource.KindTenant))
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		state := states[0]
		if len(args) > 0 {
			state = args[0]
		}
		if !slices.Contains(states, state) {
			return usagef("%q: say %s", state, strings.Join(states, ", "))
		}
		only := state
		if state == "all" {
			only = ""
		}
		requests := []client.GrantRequest{}
		for r, err := range c.GrantRequests(ctx, tenant, only) {
			if err != nil {
				return err
			}
			requests = append(requests, r)
		}
		return printRequests(std, requests, state, output)
	})
}

func printRequests(std stdio, requests []client.GrantRequest, state, output string) error {
	switch output {
	case "json":
		return printJSON(std, map[string]any{"items": requests})
	case "name":
		for i := range requests {
			fmt.Fprintln(std.out, requestName(&requests[i]))
		}
		return nil
	}
	if len(requests) == 0 {
		if state == "all" {
			state = "such"
		}
		fmt.Fprintf(std.err, "no %s requests\n", state)
		return nil
	}
	header := []string{"REQUEST", "STATE", "TOPIC", "ACCESS", "UNTIL", "ASKED", "REASON"}
	if output == "wide" {
		header = append(header, "ASKED-BY", "DECIDED", "DECIDED-BY", "GRANT", "ANSWER")
	}
	rows := make([][]string, 0, len(requests))
	for i := range requests {
		r := &requests[i]
		row := []string{requestName(r), r.State, topicText(r.Topic), string(r.Access), show.Time(r.Until), show.Time(r.Asked), r.Reason}
		if output == "wide" {
			grant := ""
			if r.Granted != nil {
				grant = r.Granted.Name
			}
			row = append(row, r.AskedBy, show.Time(r.Decided), r.DecidedBy, grant, r.Answer)
		}
		rows = append(rows, row)
	}
	return show.Table(std.out, header, rows)
}

func approveGrantCommand(std stdio) *cobra.Command {
	var of requestArgument
	var e expiry
	var a client.Approval
	var topic resource.TopicSelector
	var wait waiting
	var access string
	var prefix, dryRun bool
	cmd := &cobra.Command{
		Use:   "approve TENANT/ID --cluster CLUSTER",
		Short: "Make a topic grant of a request: of what was asked for, or less",
		Long: `approve lends a topic of an upstream cluster. What no flag says is as it was asked for.
The tenant reads the grant's name, access and end, never the cluster and the topic's
name there. More than was asked for is refused: lend that by a grant of your own.`,
		Example: `  tollgate grant approve acme/7f3a --cluster main
  tollgate grant approve acme/7f3a --cluster main --topic shop.returns.v3 --access read --in 720h --wait`,
		Args: cobra.ExactArgs(1),
	}
	of.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&a.Cluster, "cluster", "", "upstream `cluster` that the topic is on")
	f.StringVar(&topic.Name, "topic", "", "`name` of the topic there")
	f.BoolVar(&prefix, "prefix", false, "lend all topics whose names begin with --topic")
	f.StringVar(&access, "access", "", "`read` or read-write")
	f.StringVar(&a.Name, "name", "", "`name` of the topic grant, which the tenant sees")
	f.BoolVar(&dryRun, "dry-run", false, "look whether it can be done, and change nothing")
	e.flags(cmd, "what is lent")
	wait.flags(cmd)
	complete(cmd, "cluster", namesOf(resource.KindUpstreamCluster))
	complete(cmd, "access", words(string(resource.ReadOnly), string(resource.ReadWrite)))
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		tenant, id, err := of.read(args)
		switch {
		case err != nil:
			return err
		case a.Cluster == "":
			return usagef("--cluster says where the topic is")
		case prefix && topic.Name == "":
			return usagef("--prefix is of --topic")
		}
		if topic.Name != "" {
			if topic.Pattern = resource.Literal; prefix {
				topic.Pattern = resource.Prefixed
			}
			a.Topic = &topic
		}
		a.Access = resource.Access(access)
		if a.Until, err = e.time(); err != nil {
			return err
		}
		r, late := c.ApproveGrant(ctx, tenant, id, a, client.Change{DryRun: dryRun, Wait: wait.time()})
		if late != nil && !client.IsLate(late) {
			return late
		}
		verb := "approved"
		if dryRun {
			verb = "dry run: would approve"
		}
		until := "without an end"
		if !r.Granted.Until.IsZero() {
			until = "until " + show.Time(r.Granted.Until)
		}
		fmt.Fprintf(std.out, "%s %s: topic-grant/%s/%s, %s, %s\n", verb, requestName(r), r.Tenant, r.Granted.Name, r.Granted.Access, until)
		return late
	})
}

func refuseGrantCommand(std stdio) *cobra.Command {
	var of requestArgument
	var reason string
	cmd := &cobra.Command{
		Use:     "refuse TENANT/ID --reason TEXT",
		Short:   "Say no to a request, and to the tenant why",
		Example: `  tollgate grant refuse acme/7f3a --reason "ask for returns, which is yours"`,
		Args:    cobra.ExactArgs(1),
	}
	of.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "`why`, for the tenant")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		tenant, id, err := of.read(args)
		if err != nil {
			return err
		}
		if strings.TrimSpace(reason) == "" {
			return usagef("--reason says why: the tenant reads it")
		}
		r, err := c.RefuseGrant(ctx, tenant, id, reason)
		if err == nil {
			fmt.Fprintln(std.out, "refused", requestName(r))
		}
		return err
	})
}

func withdrawGrantCommand(std stdio) *cobra.Command {
	var of requestArgument
	cmd := &cobra.Command{
		Use:     "withdraw TENANT/ID",
		Short:   "Take a request back that nobody has decided",
		Example: `  tollgate grant withdraw acme/7f3a`,
		Args:    cobra.ExactArgs(1),
	}
	of.flags(cmd)
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		tenant, id, err := of.read(args)
		if err != nil {
			return err
		}
		r, err := c.WithdrawGrant(ctx, tenant, id)
		if err == nil {
			fmt.Fprintln(std.out, "withdrew", requestName(r))
		}
		return err
	})
}
