package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	board "tollgate.internal/pkg/fleet"
	"tollgate.internal/pkg/resource"
	"tollgate.internal/pkg/strictyaml"
	"tollgate.internal/services/proxy"
	"tollgate.internal/services/proxy/internal/listener"
)

const usage = `usage: proxy --config FILE
       proxy --resources DIR --listen ADDR --domain DOMAIN --certificate CERT,KEY [flags]
       proxy --resources DIR --listen-port VC=PROTOCOL://ADDR,PORTS [flags]
       proxy --control-redis URL --control-keys FILE --control-state DIR --listen ADDR --domain DOMAIN --certificate CERT,KEY [flags]

One node of the gateway. It serves the resource files of a directory, or what the portal
publishes in a Redis, follows their changes, and drains on SIGTERM. A mistake is reported as file:line: field: what; when it is
there at the start the process ends with status 1, when it comes later the node serves on
with what it had. A configuration file can say more than the flags: several listeners of a
kind, limits, PROXY protocol.

`

// FromArgs reads the command line, and the configuration file if it names one. The
// log goes to logs, and help too. The error is flag.ErrHelp when that was all, and
// [resource.Problems] when what is written is wrong.
func FromArgs(args []string, logs io.Writer) (proxy.Config, error) {
	f := defaults()
	flags := flag.NewFlagSet("proxy", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // a mistake is in the error
	var public listening
	config := flags.String("config", "", "configuration `FILE` in YAML; it stands alone")
	flags.StringVar(&f.Resources, "resources", "", "`directory` of resource files")
	flags.Func("domain", "virtual clusters are <host>.`DOMAIN`; repeatable", func(s string) error {
		f.Domains = append(f.Domains, s)
		return nil
	})
	flags.StringVar(&public.Address, "listen", "", "`address` of the listener for TLS clients of every virtual cluster, told apart by host name")
	flags.Func("advertised-port", "`port` that clients are told, behind a balancer on another one than --listen", func(s string) error {
		r := portRange{}
		err := r.UnmarshalText([]byte(s + "-" + s))
		public.AdvertisedPort = r.first
		return err
	})
	var certificates []keyPair
	flags.Func("certificate", "`CERT,KEY`: PEM files of the listeners with TLS, read again when they change; repeatable, chosen by host name", func(s string) error {
		cert, key, ok := strings.Cut(s, ",")
		if !ok {
			return errors.New("must be two files with a comma between")
		}
		certificates = append(certificates, keyPair{cert, key})
		return nil
	})
	flags.Func("listen-port", "`VC=PROTOCOL://ADDR,PORTS`: a listener for one virtual cluster, such as acme-prod=SASL_PLAINTEXT://10.1.2.3:9501,9502-9600, with the ports of its virtual brokers from node 0 on; repeatable", func(s string) error {
		l, err := portListener(s)
		f.Listeners = append(f.Listeners, l)
		return err
	})
	flags.StringVar(&f.Admin, "admin", "", "`address` of /healthz, /readyz, /metrics and /debug/pprof; none when empty")
	flags.StringVar(&f.SaltKey, "salt-key", "", "`reference` (env:NAME or file:PATH) to 16 bytes or more that all nodes of a fleet share; random when empty")
	flags.StringVar(&f.ProducerIDs.Source, "producer-ids", "", "file:PATH or redis://HOST:PORT, the `source` of the ids of idempotent producers, the same for all nodes of a fleet; needed by virtual clusters with several clusters")
	flags.StringVar(&f.ProducerIDs.Password, "producer-ids-password", "", "`reference` (env:NAME or file:PATH) to the password of that Redis; the URL's when empty")
	flags.IntVar(&f.ProducerIDs.Deployment, "deployment", 0, "`number`, 0 to 1023, of the fleet among those that reach the same clusters: producer ids have it in them")
	c := &f.Control
	flags.StringVar(&c.Redis, "control-redis", "", "redis://HOST:PORT: serve what the portal publishes there, in place of --resources; the `URL` that portal and nodes share")
	flags.StringVar(&c.Password, "control-redis-password", "", "`reference` (env:NAME or file:PATH) to the password of that Redis; the URL's when empty")
	flags.StringVar(&c.PublicKeys, "control-keys", "", "PEM `file` with the public key that the portal signs with; with two of them while it is replaced")
	flags.StringVar(&c.State, "control-state", "", "`directory` of this node alone, where it keeps what it was told")
	flags.StringVar(&c.Deployment, "control-deployment", "", "`name` that tells fleets on one Redis apart (default "+string(board.DefaultDeployment)+")")
	flags.StringVar(&c.Node, "control-node", "", "`id` of the node, another for each; the host name when empty")
	flags.StringVar(&c.Rack, "control-rack", "", "the node's `rack`, as brokers name it")
	flags.StringVar(&c.Balancing, "control-balancing", "", "external, or internal: clients are sent to the nodes' own `domains` (default external)")
	flags.StringVar(&c.Advertise, "control-advertise", "", "the node's own `domain`, such as n1.gw.example.com, with internal balancing; and :PORT, if it is another than that of --listen")
	flags.StringVar(&c.API, "control-api", "", "`URL` of the portal's API, which is told of changes of ACLs that come by Kafka's admin protocol; they are refused when empty")
	flags.StringVar(&c.Token, "control-token", "", "`reference` (env:NAME or file:PATH) to the node's token for the API")
	flags.BoolVar(&c.Preload, "control-preload", false, "load every virtual cluster at the start, and not with its first client")
	flags.DurationVar(&c.UnloadAfter, "control-unload-after", 0, "that a virtual cluster without sessions stays in memory (default 1h)")
	flags.TextVar(&f.Log.Level, "log-level", f.Log.Level, "debug, info, warn or error")
	flags.StringVar(&f.Log.Format, "log-format", f.Log.Format, "text or json")
	flags.DurationVar(&f.DrainGrace, "drain-grace", f.DrainGrace, "from not being ready to not accepting any more, after SIGTERM")
	flags.DurationVar(&f.DrainSpread, "drain-spread", f.DrainSpread, "over which sessions are then moved off; 0s: all at once")
	flags.DurationVar(&f.DrainTimeout, "drain-timeout", 0, "for the last of them to finish after that (default 30s)")
	flags.DurationVar(&f.ReloadEvery, "reload-every", 0, "how often the resource files are looked at (default 250ms)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(logs)
			fmt.Fprint(logs, usage)
			flags.PrintDefaults()
			return proxy.Config{}, err
		}
		return proxy.Config{}, wrong("", "%v; --help lists the flags", err)
	}
	if flags.NArg() > 0 {
		return proxy.Config{}, wrong("", "unexpected argument %q", flags.Arg(0))
	}
	if *config != "" {
		if flags.NFlag() > 1 {
			return proxy.Config{}, wrong("--config", "stands alone: what the other flags say belongs into the file")
		}
		return Load(*config, logs)
	}
	if public.Address != "" {
		public.Name, public.Routing = "sni", string(listener.BySNI)
		f.Listeners = slices.Insert(f.Listeners, 0, public)
	}
	for i := range f.Listeners {
		if f.Listeners[i].protocol().Encrypted() {
			f.Listeners[i].Certificates = certificates
		}
	}
	return f.fromFlags(logs)
}

// commandLine stands where a file's name does in problems.
const commandLine = "command line"

func wrong(field, format string, args ...any) resource.Problems {
	return resource.Problems{{File: commandLine, Field: field, Message: fmt.Sprintf(format, args...)}}
}

func (f *file) fromFlags(logs io.Writer) (proxy.Config, error) {
	var problems resource.Problems
	d := &strictyaml.Document{File: commandLine, Problems: &problems}
	if f.Resources == "" && f.Control == (control{}) {
		d.Problem("resources", "required, or --control-redis, or --config")
	}
	f.check(d)
	salt, ids, control := f.saltKey(d, ""), f.ProducerIDs.resolve(d, ""), f.Control.resolve(f, d, "")
	if len(problems) > 0 {
		for i := range problems {
			p := &problems[i]
			p.Line, p.Field = 0, f.flagOf(p.Field)
		}
		return proxy.Config{}, problems
	}
	cfg := f.config("", logs)
	cfg.SaltKey, cfg.ProducerIDs, cfg.Control = salt, ids, control
	cfg.Fleet = f.Control.fleet()
	return cfg, nil
}

// flagOf is the flag behind a path of the file.
func (f *file) flagOf(path string) string {
	var i int
	if n, _ := fmt.Sscanf(path, "listeners[%d]", &i); n == 1 {
		switch l := f.Listeners[i]; {
		case strings.Contains(path, ".certificates"):
			return "--certificate"
		case l.Routing == string(listener.ByPort):
			return "--listen-port " + l.VirtualCluster
		}
		return "--listen"
	}
	switch path, _, _ := strings.Cut(path, "["); path {
	case "listeners":
		return "--listen"
	case "domains":
		return "--domain"
	case "saltKey":
		return "--salt-key"
	case "producerIDs.source":
		return "--producer-ids"
	case "producerIDs.password":
		return "--producer-ids-password"
	case "producerIDs.deployment":
		return "--deployment"
	case "control":
		return "--control-redis"
	case "control.password":
		return "--control-redis-password"
	case "control.publicKeys":
		return "--control-keys"
	case "control.unloadAfter":
		return "--control-unload-after"
	case "log.format":
		return "--log-format"
	case "drainGrace":
		return "--drain-grace"
	case "drainSpread":
		return "--drain-spread"
	case "drainTimeout":
		return "--drain-timeout"
	case "reloadEvery":
		return "--reload-every"
	default:
		return "--" + strings.Replace(path, "control.", "control-", 1)
	}
}

// portListener reads VC=PROTOCOL://ADDR,PORTS.
func portListener(s string) (l listening, err error) {
	vc, rest, ok1 := strings.Cut(s, "=")
	protocol, rest, ok2 := strings.Cut(rest, "://")
	address, ports, ok3 := strings.Cut(rest, ",")
	if !ok1 || !ok2 || !ok3 {
		return l, errors.New("must be like acme-prod=SASL_PLAINTEXT://10.1.2.3:9501,9502-9600")
	}
	l = listening{
		Name: "port-" + vc, Address: address, Routing: string(listener.ByPort), Protocol: protocol,
		VirtualCluster: vc, BrokerPorts: make([]brokerPorts, 1),
	}
	return l, l.BrokerPorts[0].UnmarshalText([]byte(ports))
}
