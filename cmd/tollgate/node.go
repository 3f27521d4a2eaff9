package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tollgate.internal/cmd/tollgate/internal/client"
	"tollgate.internal/cmd/tollgate/internal/show"
)

func nodeCommand(std stdio) *cobra.Command {
	return parent(&cobra.Command{
		Use:   "node COMMAND",
		Short: "List the nodes of the fleet, and move clients off one",
	}, std, listNodesCommand(std), drainCommand(std), undrainCommand(std))
}

func listNodesCommand(std stdio) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List nodes with version, load, sessions and applied revision",
		Args:  cobra.NoArgs,
	}
	outputFlag(cmd, &output, "table", "wide", "json", "name")
	return operation(cmd, std, func(ctx context.Context, c *client.Client, _ []string) error {
		nodes, problem, err := c.Nodes(ctx)
		if err != nil {
			return err
		}
		if problem != "" {
			fmt.Fprintln(std.err, "warning:", problem)
		}
		switch output {
		case "json":
			return printJSON(std, map[string]any{"items": append([]client.Node{}, nodes...)})
		case "name":
			for _, n := range nodes {
				fmt.Fprintln(std.out, n.ID)
			}
			return nil
		}
		if len(nodes) == 0 {
			fmt.Fprintln(std.err, "no nodes")
			return nil
		}
		header := []string{"ID", "STATE", "VERSION", "SESSIONS", "LOAD", "APPLIED", "RACK", "PROBLEM"}
		if output == "wide" {
			header = append(header, "ADDRESS", "DOMAIN", "STARTED", "HEARTBEAT")
		}
		var rows [][]string
		now := time.Now()
		for _, n := range nodes {
			row := []string{
				n.ID, n.State, n.Version, strconv.Itoa(n.Sessions), fmt.Sprintf("%.0f%%", 100*n.Load),
				strconv.FormatInt(n.Applied, 10), n.Rack, n.Problem,
			}
			if output == "wide" {
				row = append(row, net.JoinHostPort(n.Host, strconv.Itoa(int(n.Port))), n.Domain, show.Ago(n.Started, now), show.Ago(n.Heartbeat, now))
			}
			rows = append(rows, row)
		}
		return show.Table(std.out, header, rows)
	})
}

func drainCommand(std stdio) *cobra.Command {
	var over, timeout time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move all clients of a node to others",
		Long: `drain takes a node out of the maps that clients get, and moves its clients to the
other nodes over a time, without an error that an application would see. The node
goes on running; node undrain lets it take clients again.`,
		Example: `  tollgate node drain node-1 --over 1m --wait`,
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.DurationVar(&over, "over", 0, "`time` to spread it over; the server's default is 30s")
	f.BoolVar(&wait, "wait", false, "return when the node has no session left, or is gone")
	f.DurationVar(&timeout, "wait-timeout", 5*time.Minute, "`time` to wait for that")
	cmd.ValidArgsFunction = completeNodes
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.Drain(ctx, args[0], over); err != nil {
			return err
		}
		fmt.Fprintln(std.out, "drains", args[0])
		if !wait {
			return nil
		}
		left, err := awaitDrained(ctx, c, args[0], timeout)
		if err != nil {
			return err
		}
		if left > 0 {
			return &client.NotApplied{Why: fmt.Sprintf("%s has %s left after %v", args[0], count(left, "session"), timeout)}
		}
		fmt.Fprintln(std.out, args[0], "has no sessions")
		return nil
	})
}

// awaitDrained looks every half second how many sessions a node has left.
func awaitDrained(ctx context.Context, c *client.Client, id string, timeout time.Duration) (left int, err error) {
	deadline := time.After(timeout)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		nodes, _, err := c.Nodes(ctx)
		if err != nil {
			return 0, err
		}
		drained := true // a node that is not there any more is
		for _, n := range nodes {
			if n.ID == id {
				left, drained = n.Sessions, n.State == "drained" || n.State == "gone"
			}
		}
		if drained {
			return 0, nil
		}
		select {
		case <-ctx.Done():
			return left, ctx.Err()
		case <-deadline:
			return max(left, 1), nil
		case <-tick.C:
		}
	}
}

func undrainCommand(std stdio) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "undrain NODE",
		Short: "Let a node take clients again",
		Args:  cobra.ExactArgs(1),
	}
	cmd.ValidArgsFunction = completeNodes
	return operation(cmd, std, func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.Undrain(ctx, args[0]); err != nil {
			return err
		}
		fmt.Fprintln(std.out, "takes clients again:", args[0])
		return nil
	})
}
