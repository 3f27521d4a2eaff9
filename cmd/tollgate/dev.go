package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"tollgate.internal/cmd/tollgate/internal/dev"
)

const defaultState = ".tollgate"

// flags makes a flag set whose mistakes are explained on stderr.
func flags(name, arguments string, std stdio) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(std.err)
	f.Usage = func() {
		fmt.Fprintf(std.err, "usage: tollgate %s [flags] %s\n", name, arguments)
		f.PrintDefaults()
	}
	return f
}

// parseFlags also accepts flags behind arguments.
func parseFlags(f *flag.FlagSet, args []string) (arguments []string, err error) {
	for {
		if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err // it has been given
		} else if err != nil {
			return nil, errUsage // the flag package has said what is wrong
		}
		used := len(args) - f.NArg()
		if used > 0 && args[used-1] == "--" {
			return append(arguments, f.Args()...), nil
		}
		if args = f.Args(); len(args) == 0 {
			return arguments, nil
		}
		arguments, args = append(arguments, args[0]), args[1:]
	}
}

func runDev(ctx context.Context, args []string, std stdio) error {
	cfg := dev.Config{Out: std.out, Err: std.err}
	f := flags("dev", "", std)
	f.StringVar(&cfg.State, "state", defaultState, "`directory` of everything that outlives the run")
	f.Func("upstream", "`NAME=HOST:PORT[,HOST:PORT]`: a real PLAINTEXT cluster instead of the embedded ones; repeatable, the first is home", func(s string) error {
		u, err := dev.ParseUpstream(s)
		cfg.Upstreams = append(cfg.Upstreams, u)
		return err
	})
	f.StringVar(&cfg.Resources, "resources", "", "`directory` of resource files, in place of the seeded tenants")
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:9092", "`address` of the SNI listener")
	f.StringVar(&cfg.Domain, "domain", "gw.localhost", "virtual clusters are <host>.<`domain`>")
	f.IntVar(&cfg.Nodes, "nodes", 0, "`number` of proxies, each a process of its own on 127.0.0.1, 127.0.0.2 and so on; one in this process when 0")
	f.StringVar(&cfg.Redis, "redis", "", "`URL` of a real Redis, redis://HOST:PORT; an embedded one when empty")
	f.StringVar(&cfg.Database, "database", "", "`URL` of a real database, postgres://…; one in the state directory when empty")
	f.IntVar(&cfg.PortBase, "port-base", 9400, "`port` from which on everything else listens")
	debug := f.Bool("debug", false, "log more")
	rest, err := parseFlags(f, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		fmt.Fprintf(std.err, "tollgate dev: unexpected argument %q\n", rest[0])
		return errUsage
	}
	level := slog.LevelWarn
	if *debug {
		level = slog.LevelDebug
	}
	cfg.Log = slog.New(slog.NewTextHandler(std.err, &slog.HandlerOptions{Level: level}))
	return dev.Run(ctx, cfg)
}

// devNode is a proxy that tollgate dev --nodes has started.
func devNode(ctx context.Context, args []string, std stdio) error {
	if len(args) != 1 {
		return errUsage
	}
	return dev.RunNode(ctx, args[0], std.in, std.err)
}

// devExec becomes CMD, in a mount namespace of its own where the gateway's host
// names stand in /etc/hosts, with what clients need in its environment.
func devExec(args []string, std stdio) error {
	f := flags("dev exec", "-- CMD [ARG]…", std)
	var l login
	f.StringVar(&l.state, "state", defaultState, "state `directory` of the running tollgate dev")
	f.StringVar(&l.vc, "vc", "", "`virtual cluster` that the environment is for; default: its first standard one, or its first")
	f.StringVar(&l.user, "user", "", "service `account`; default: the virtual cluster's first")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errUsage
	}
	if f.NArg() == 0 {
		f.Usage()
		return errUsage
	}
	argv, err := execCommand(l.state, f.Args())
	if err != nil {
		return err
	}
	env, err := l.environment()
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("dev exec needs unshare of util-linux: %w", err)
	}
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, argv, append(os.Environ(), env...)))
}

// environment is how a client connects, as variables and as the configuration files
// of librdkafka and of the Java client.
func (l *login) environment() ([]string, error) {
	info, err := dev.Read(l.state)
	if err != nil {
		return nil, err
	}
	if err := l.fill(info); err != nil {
		return nil, err
	}
	files := map[string]string{
		"librdkafka.properties": "bootstrap.servers=" + l.bootstrap + "\nsecurity.protocol=SSL\nssl.ca.location=" + l.ca + "\n",
		"java.properties":       "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=" + l.ca + "\n",
	}
	if l.user != "" {
		files["librdkafka.properties"] += fmt.Sprintf("security.protocol=SASL_SSL\nsasl.mechanism=%s\nsasl.username=%s\nsasl.password=%s\n", l.mechanism, l.user, l.password)
		module := "scram.ScramLoginModule"
		if l.mechanism == "PLAIN" {
			module = "plain.PlainLoginModule"
		}
		files["java.properties"] += fmt.Sprintf("security.protocol=SASL_SSL\nsasl.mechanism=%s\nsasl.jaas.config=org.apache.kafka.common.security.%s required username=\"%s\" password=\"%s\";\n", l.mechanism, module, l.user, l.password)
	}
	dir := filepath.Join(filepath.Dir(info.HostsFile), "clients")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	env := []string{
		"TOLLGATE_BOOTSTRAP=" + l.bootstrap, "TOLLGATE_CA=" + l.ca, "TOLLGATE_MECHANISM=" + l.mechanism,
		"TOLLGATE_USERNAME=" + l.user, "TOLLGATE_PASSWORD=" + l.password,
	}
	for variable, name := range map[string]string{"TOLLGATE_LIBRDKAFKA": "librdkafka.properties", "TOLLGATE_JAVA": "java.properties"} {
		path := filepath.Join(dir, l.vc+"."+l.user+"."+name)
		if err := dev.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			return nil, err
		}
		env = append(env, variable+"="+path)
	}
	return env, nil
}

// execCommand is the command line that runs cmd with the hosts file. The
// machine's own names stay: without localhost much would not work.
func execCommand(state string, cmd []string) ([]string, error) {
	d, err := dev.Read(state)
	if err != nil {
		return nil, err
	}
	ours, err := os.ReadFile(d.HostsFile)
	if err != nil {
		return nil, err
	}
	machine, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	merged := bytes.TrimRight(machine, "\n")
	merged = append(append(merged, '\n'), ours...)
	file := filepath.Join(filepath.Dir(d.HostsFile), "hosts.exec")
	if err := dev.WriteFile(file, merged, 0o644); err != nil {
		return nil, err
	}
	argv := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		argv = append(argv, "--map-root-user")
	}
	script := `hosts=$1; shift; mount --bind "$hosts" /etc/hosts && exec "$@"`
	argv = append(argv, "--", "sh", "-c", strings.TrimSpace(script), "sh", file)
	return append(argv, cmd...), nil
}
