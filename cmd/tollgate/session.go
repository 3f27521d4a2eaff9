package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
	"tollgate.internal/pkg/resource"
)

func sessionCommand(std stdio) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "session COMMAND",
		Short: "List the clients that are connected, and close a connection",
	}, std, listSessionsCommand(std), closeSessionCommand(std))
}

func listSessionsCommand(std stdio) *cobra.Command {
	var q client.SessionQuery
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the connections of clients: who, with what, since when",
		Long: `list asks the nodes who is connected to them now. A client has several connections:
one to each broker that it talks to, and more for groups. IDLE is how long ago the
last request came, IN and OUT are bytes on the wire.`,
		Example: `  tollgate session list --vc acme-prod
  tollgate session list --principal User:billing -o wide`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&q.Tenant, "tenant", "", "only those of this `tenant`")
	f.StringVar(&q.VirtualCluster, "vc", "", "only those of this `virtual cluster`")
	f.StringVar(&q.Principal, "principal", "", "only those of this `principal`, such as User:billing")
	f.StringVar(&q.Node, "node", "", "only those on this `node`")
	f.IntVarP(&q.Limit, "limit", "n", 100, "the first so `many`, 1000 at most")
	complete(cmd, "tenant", namesOf(resource.KindTenant))
	complete(cmd, "vc", namesOf(resource.KindVirtualCluster))
	complete(cmd, "node", func(cmd *cobra.Command, _ []string, begun string) []string {
		ids, _ := completeNodes(cmd, nil, begun)
		return ids
	})
	outputFlag(cmd, &output, "table", "wide", "json", "yaml", "name")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, _ []string) error {
		if q.Limit < 1 || q.Limit > 1000 {
			return usagef("--limit %d: 1 to 1000", q.Limit)
		}
		found, err := c.Sessions(ctx, q)
		if err != nil {
			return err
		}
		switch {
		case len(found.Missing) > 0:
			fmt.Fprintln(std.err, "warning: no answer from", strings.Join(found.Missing, ", ")+": there may be more")
		case found.Incomplete:
			fmt.Fprintln(std.err, "warning: not every node has answered: there may be more")
		}
		if err := printSessions(std, found, output); err != nil {
			return err
		}
		if more := found.Total - len(found.Items); more > 0 {
			fmt.Fprintf(std.err, "%d of %s: choose by --vc, --principal, --node, or raise --limit\n", len(found.Items), count(found.Total, "session"))
		}
		return nil
	})
}

func printSessions(std stdio, found *client.Sessions, output string) error {
	switch output {
	case "json":
		return printJSON(std, found)
	case "yaml":
		data, err := json.Marshal(found)
		if err != nil {
			return err
		}
		if data, err = show.YAML(data); err == nil {
			_, err = std.out.Write(data)
		}
		return err
	case "name":
		for _, s := range found.Items {
			fmt.Fprintln(std.out, s.ID)
		}
		return nil
	}
	if len(found.Items) == 0 {
		fmt.Fprintln(std.err, "no sessions")
		return nil
	}
	header := []string{"ID", "VIRTUAL-CLUSTER", "PRINCIPAL", "CLIENT", "ADDRESS", "SINCE", "IDLE", "IN", "OUT"}
	if output == "wide" {
		header = append(header, "MECHANISM", "SOFTWARE", "REQUESTS", "NODE", "TENANT")
	}
	now := time.Now()
	rows := make([][]string, 0, len(found.Items))
	for _, s := range found.Items {
		row := []string{
			s.ID, s.VirtualCluster, s.Principal, s.ClientID, s.Address, show.Ago(s.Since, now), show.Ago(cmp.Or(s.LastRequest, s.Since), now),
			bytesText(s.BytesIn), bytesText(s.BytesOut),
		}
		if output == "wide" {
			row = append(row, s.Mechanism, strings.TrimSpace(s.Software+" "+s.SoftwareVersion), strconv.FormatUint(s.Requests, 10), s.Node, s.Tenant)
		}
		rows = append(rows, row)
	}
	return show.Table(std.out, header, rows)
}

// bytesText is a number of bytes for people, to three digits: 1.21MiB.
func bytesText(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10)
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if v /= 1024; v < 1000 {
			break
		}
	}
	return strconv.FormatFloat(v, 'f', max(0, 2-len(strconv.Itoa(int(v)))+1), 64) + unit
}

func closeSessionCommand(std stdio) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "close SESSION",
		Short: "Close one connection of a client, now",
		Long: `close ends a connection, whatever is in flight. The client may come back: what keeps
it away is to revoke its secret (tollgate secret revoke).`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.CloseSession(ctx, args[0]); err != nil {
			return err
		}
		fmt.Fprintln(std.out, "closed", args[0])
		return nil
	})
}
