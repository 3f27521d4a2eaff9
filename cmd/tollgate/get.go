package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

// selection is which objects a command is about.
type selection struct {
	scope
	labels string
}

func (s *selection) flags(cmd *cobra.Command) {
	s.scopeFlags(cmd)
	cmd.Flags().StringVarP(&s.labels, "selector", "l", "", "only objects with these `labels`: plan=gold, plan!=gold, plan in (gold, silver), plan, !plan; several with commas")
}

func (s *scope) scopeFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.tenant, "tenant", "", "only what is this `tenant`'s; whose topic grant or budget is meant")
	f.StringVar(&s.vc, "vc", "", "`virtual cluster` whose alias topics, service accounts, ACLs or policies are meant")
	complete(cmd, "tenant", namesOf(resource.KindTenant))
	complete(cmd, "vc", namesOf(resource.KindVirtualCluster))
	cmd.ValidArgsFunction = s.completeObjects
}

// list lists objects of a kind: of one scope if one was named, of all otherwise.
func (s *selection) list(ctx context.Context, c *client.Client, k resource.Kind) iter.Seq2[*client.Object, error] {
	return c.List(ctx, client.ListOptions{Kind: k, Scope: s.of(k), Tenant: s.tenant, Labels: s.labels})
}

// find reads what a target names. Of several things that are named each is
// looked for: those that are there are returned beside the error for the others.
func (s *selection) find(ctx context.Context, c *client.Client, t target) (found []*client.Object, err error) {
	if len(t.keys) > 0 && s.labels != "" {
		return nil, usagef("a label selector selects among all: leave it out, or the names")
	}
	var errs []error
	for _, key := range t.keys {
		o, err := c.Get(ctx, key)
		if err != nil {
			errs = append(errs, err)
			if !client.IsNotFound(err) {
				break
			}
			continue
		}
		found = append(found, o)
	}
	for _, k := range t.kinds {
		for o, err := range s.list(ctx, c, k) {
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", k.Plural, err)
			}
			found = append(found, o)
		}
	}
	return found, errors.Join(errs...)
}

func getCommand(std stdio) *cobra.Command {
	var s selection
	var output string
	cmd := &cobra.Command{
		Use:   "get KIND [NAME]… | KIND/NAME…",
		Short: "List objects, or show some",
		Long: `get lists all objects of a kind, or those that are named, as a table; -o yaml and
-o json have every field. What is within a tenant or a virtual cluster is named
SCOPE/NAME, or NAME with --tenant or --vc. A policy that is named without is one of
all virtual clusters, which tables show as *.

Kinds: ` + kindHelp() + `; all is every one, and a list such as vc,sa is several.`,
		Example: `  tollgate get tenants
  tollgate get vc -l plan=gold -o wide
  tollgate get alias-topics --vc acme-prod
  tollgate get service-account acme-prod/shipping -o yaml
  tollgate get all -o name`,
	}
	s.flags(cmd)
	outputFlag(cmd, &output, "table", "wide", "yaml", "json", "name")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		t, err := s.targets(args)
		if err != nil {
			return err
		}
		found, problem := s.find(ctx, c, t)
		if problem != nil && len(found) == 0 {
			return problem
		}
		if err := printObjects(std, found, output, len(t.keys) == 1, t.kinds); err != nil {
			return err
		}
		return problem
	})
}

func kindHelp() string {
	var parts []string
	for _, k := range resource.Kinds {
		names := shortNames[k.Name]
		if len(names) > 1 {
			parts = append(parts, k.Plural+" ("+strings.Join(names[1:], ", ")+")")
			continue
		}
		parts = append(parts, k.Plural)
	}
	return strings.Join(parts, ", ")
}

// printObjects prints objects in the form that was asked for.
func printObjects(std stdio, found []*client.Object, output string, single bool, kinds []resource.Kind) error {
	switch output {
	case "name":
		for _, o := range found {
			fmt.Fprintln(std.out, nameOf(resource.KeyOf(o.Object)))
		}
		return nil
	case "json":
		if single && len(found) == 1 {
			return show.JSON(std.out, found[0].Raw)
		}
		items := make([]json.RawMessage, len(found))
		for i, o := range found {
			items[i] = o.Raw
		}
		data, err := json.Marshal(map[string]any{"items": items})
		if err != nil {
			return err
		}
		return show.JSON(std.out, data)
	case "yaml":
		for i, o := range found {
			if i > 0 {
				fmt.Fprintln(std.out, "---")
			}
			data, err := show.YAML(o.Raw)
			if err != nil {
				return err
			}
			fmt.Fprint(std.out, string(data))
		}
		return nil
	}
	byKind := make(map[string][]*client.Object)
	for _, o := range found {
		byKind[o.Kind()] = append(byKind[o.Kind()], o)
	}
	if len(found) == 0 {
		var names []string
		for _, k := range kinds {
			names = append(names, k.Plural)
		}
		fmt.Fprintf(std.err, "no %s\n", cmp.Or(strings.Join(names, ", "), "objects"))
		return nil
	}
	first := true
	for _, k := range resource.Kinds {
		objects := byKind[k.Name]
		if len(objects) == 0 {
			continue
		}
		if !first {
			fmt.Fprintln(std.out)
		}
		first = false
		if len(byKind) > 1 {
			fmt.Fprintf(std.out, "%s:\n", k.Plural)
		}
		var rows [][]string
		for _, o := range objects {
			row, extra, err := columns(o, time.Now())
			if err != nil {
				return err
			}
			if output == "wide" {
				row = append(append(row, extra...), strconv.FormatInt(o.Meta().Revision, 10), labelText(o.Meta().Labels))
			}
			rows = append(rows, row)
		}
		header := slices.Clone(headers[k.Name])
		if output == "wide" {
			header = append(append(header, wideHeaders[k.Name]...), "REVISION", "LABELS")
		}
		if err := show.Table(std.out, header, rows); err != nil {
			return err
		}
	}
	return nil
}

var headers = map[string][]string{
	resource.KindTenant:          {"NAME", "STATE", "DISPLAY-NAME"},
	resource.KindUpstreamCluster: {"NAME", "BOOTSTRAP", "SECURITY"},
	resource.KindVirtualCluster:  {"NAME", "TENANT", "TYPE", "HOST", "HOME"},
	resource.KindTopicGrant:      {"TENANT", "NAME", "CLUSTER", "TOPIC", "ACCESS", "UNTIL"},
	resource.KindAliasTopic:      {"VIRTUAL-CLUSTER", "NAME", "CLUSTER", "TOPIC"},
	resource.KindServiceAccount:  {"VIRTUAL-CLUSTER", "NAME", "TYPE", "SECRETS", "EXPIRES"},
	resource.KindACL:             {"VIRTUAL-CLUSTER", "NAME", "PRINCIPAL", "PERMISSION", "OPERATION", "RESOURCE"},
	resource.KindPolicy:          {"VIRTUAL-CLUSTER", "NAME", "TYPE", "PRIORITY", "ASKS-FOR"},
	resource.KindPriceBook:       {"NAME", "PLAN", "FROM", "CURRENCY", "ENTRIES"},
	resource.KindBudget:          {"TENANT", "NAME", "PERIOD", "LIMIT", "THRESHOLDS"},
}

var wideHeaders = map[string][]string{
	resource.KindTenant:          {"PLAN", "CONTACTS"},
	resource.KindUpstreamCluster: {},
	resource.KindVirtualCluster:  {"CLUSTERS", "CUSTOM-HOSTS", "LOGINS"},
	resource.KindTopicGrant:      {},
	resource.KindAliasTopic:      {"IDENTITY"},
	resource.KindServiceAccount:  {"EXTERNAL-NAMES"},
	resource.KindACL:             {"HOST"},
	resource.KindPolicy:          {"WITHIN", "WHO", "TOPICS"},
	resource.KindPriceBook:       {"PRICES"},
	resource.KindBudget:          {"EMAILS", "WEBHOOKS"},
}

// columns is an object as a row of its kind's table, and what a wide one has more.
func columns(o *client.Object, now time.Time) (row, extra []string, err error) {
	m := o.Meta()
	switch o := o.Object.(type) {
	case *resource.Tenant:
		row = []string{m.Name, string(o.Spec.State), o.Spec.DisplayName}
		extra = []string{o.Spec.Plan, strings.Join(o.Spec.Contacts, ",")}
	case *resource.UpstreamCluster:
		row = []string{m.Name, strings.Join(o.Spec.Bootstrap, ","), security(&o.Spec)}
	case *resource.VirtualCluster:
		row = []string{m.Name, m.Tenant, string(o.Spec.Type), o.Spec.Host, o.Spec.Home}
		extra = []string{strings.Join(o.Spec.Clusters, ","), strings.Join(o.Spec.CustomHosts, ","), logins(&o.Spec.Authentication)}
	case *resource.TopicGrant:
		topic := o.Spec.Topic.Name
		if o.Spec.Topic.Pattern == resource.Prefixed {
			topic += "*"
		}
		row = []string{m.Tenant, m.Name, o.Spec.Cluster, topic, string(o.Spec.Access), show.Time(o.Spec.Until)}
	case *resource.AliasTopic:
		row = []string{m.VirtualCluster, m.Name, o.Spec.Cluster, o.Spec.Topic}
		extra = []string{o.Spec.Identity}
	case *resource.ServiceAccount:
		row = []string{m.VirtualCluster, m.Name, string(o.Spec.Type), "", show.Time(o.Spec.Expires)}
		extra = []string{strings.Join(o.Spec.ExternalNames, ";")}
	case *resource.ACL:
		r := o.Spec.Resource
		name := r.Type + ":" + r.Name
		if r.Pattern == resource.Prefixed {
			name += "*"
		}
		row = []string{m.VirtualCluster, m.Name, o.Spec.Principal, o.Spec.Permission, o.Spec.Operation, name}
		extra = []string{o.Spec.Host}
	case *resource.Policy:
		row = []string{cmp.Or(m.VirtualCluster, "*"), m.Name, string(o.Spec.Type), strconv.Itoa(int(o.Spec.Priority)), asked(&o.Spec.Config)}
		who := o.Spec.Scope.Principals
		if labels := labelText(o.Spec.Scope.AccountLabels); labels != "" {
			who = append(slices.Clone(who), labels)
		}
		within := labelText(o.Spec.Scope.VirtualClusterLabels)
		if except := labelText(o.Spec.Scope.ExceptVirtualClusterLabels); except != "" {
			within = cmp.Or(within, "*") + " except " + except
		}
		topics := topicList(o.Spec.Scope.Topics)
		if except := topicList(o.Spec.Scope.ExceptTopics); except != "" {
			topics = cmp.Or(topics, "*") + " except " + except
		}
		extra = []string{within, strings.Join(who, ","), topics}
	case *resource.PriceBook:
		row = []string{m.Name, o.Spec.Plan, show.Time(o.Spec.From), o.Spec.Currency, strconv.Itoa(len(o.Spec.Entries))}
		extra = []string{prices(o.Spec.Entries)}
	case *resource.Budget:
		limit := string(o.Spec.Amount) + " " + o.Spec.Currency
		if o.Spec.Bytes > 0 {
			limit = strconv.FormatInt(o.Spec.Bytes, 10) + " bytes"
		}
		row = []string{m.Tenant, m.Name, string(o.Spec.Period), limit, percentages(o.Spec.Thresholds)}
		extra = []string{strings.Join(o.Spec.Notify.Emails, ","), strings.Join(o.Spec.Notify.Webhooks, ",")}
	}
	if a, ok := o.Object.(*resource.ServiceAccount); ok && a.Spec.Type == resource.Local {
		secrets, err := o.Secrets()
		if err != nil {
			return nil, nil, err
		}
		live := 0
		for _, s := range secrets {
			if s.Expires.IsZero() || now.Before(s.Expires) {
				live++
			}
		}
		row[3] = fmt.Sprint(live)
	}
	return row, extra, nil
}

// asked is what a policy asks for in few words.
func asked(c *resource.PolicyConfig) string {
	var all []string
	if c.Acks != "" {
		all = append(all, "acks="+string(c.Acks))
	}
	if len(c.Compression) > 0 {
		all = append(all, "compression="+strings.Join(c.Compression, "|"))
	}
	if c.MaxBatchBytes > 0 {
		all = append(all, "batch<="+strconv.Itoa(int(c.MaxBatchBytes)))
	}
	if c.Idempotent {
		all = append(all, "idempotent")
	}
	return strings.Join(all, ",")
}

func topicList(topics []resource.TopicSelector) string {
	all := make([]string, len(topics))
	for i, t := range topics {
		if all[i] = t.Name; t.Pattern == resource.Prefixed {
			all[i] += "*"
		}
	}
	return strings.Join(all, ",")
}

// prices are those of a price book in few words: GiB produced west=0.035.
func prices(entries []resource.Price) string {
	all := make([]string, len(entries))
	for i, p := range entries {
		words := []string{string(p.Unit)}
		for _, w := range []string{string(p.Direction), p.Cluster} {
			if w != "" {
				words = append(words, w)
			}
		}
		if p.Topic != nil {
			topic := p.Topic.Name
			if p.Topic.Pattern == resource.Prefixed {
				topic += "*"
			}
			words = append(words, topic)
		}
		all[i] = strings.Join(words, " ") + "=" + string(p.Price)
	}
	return strings.Join(all, "; ")
}

func percentages(thresholds []int) string {
	all := make([]string, len(thresholds))
	for i, t := range thresholds {
		all[i] = strconv.Itoa(t) + "%"
	}
	return strings.Join(all, ",")
}

func security(s *resource.UpstreamClusterSpec) string {
	text := "plaintext"
	if s.TLS != nil {
		text = "TLS"
		if s.TLS.CertFile != "" {
			text = "mTLS"
		}
	}
	if s.SASL != nil {
		text += "+" + s.SASL.Mechanism
	}
	return text
}

func logins(a *resource.Authentication) string {
	var all []string
	for _, l := range []struct {
		name string
		on   bool
	}{
		{"plain", a.Plain != nil},
		{"scram", a.SCRAM != nil},
		{"oauthbearer", len(a.OAuthBearer) > 0},
		{"mtls", a.MTLS != nil},
		{"anonymous", a.Anonymous != nil},
	} {
		if l.on {
			all = append(all, l.name)
		}
	}
	return strings.Join(all, ",")
}

func labelText(labels map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, name+"="+labels[name])
	}
	return strings.Join(all, ",")
}
