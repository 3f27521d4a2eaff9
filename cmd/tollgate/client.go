package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"tollgate.internal/cmd/tollgate/internal/dev"
)

// login is where to connect to and as whom. What is not said comes from the
// running tollgate dev.
type login struct {
	state, vc                string
	bootstrap, ca, mechanism string
	user, password           string
	plaintext                bool
}

func (l *login) flags(f *flag.FlagSet) {
	f.StringVar(&l.state, "state", defaultState, "state `directory` of the running tollgate dev")
	f.StringVar(&l.vc, "vc", "", "`virtual cluster` of the running tollgate dev; default: its first standard one, or its first")
	f.StringVar(&l.bootstrap, "bootstrap", "", "`HOST:PORT` in place of the virtual cluster's")
	f.StringVar(&l.user, "user", "", "service `account`; default: the virtual cluster's first, for which the password is known too")
	f.StringVar(&l.password, "password", "", "the account's `password`")
	f.StringVar(&l.ca, "ca", "", "PEM `file` of the CAs to trust")
	f.StringVar(&l.mechanism, "mechanism", "", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 (default); none: no login")
	f.BoolVar(&l.plaintext, "plaintext", false, "no TLS, as by port; needs --bootstrap")
}

// client connects as the flags say.
func (l *login) client(options ...kgo.Opt) (*kgo.Client, error) {
	info, err := dev.Read(l.state)
	if err != nil && (l.bootstrap == "" || l.vc != "") {
		return nil, err // with --bootstrap it takes no tollgate dev
	}
	if info != nil {
		if err := l.fill(info); err != nil {
			return nil, err
		}
	}
	options = append(options, kgo.SeedBrokers(l.bootstrap))
	switch {
	case l.plaintext:
	case info != nil:
		dial, err := dev.Dialer(info, l.ca)
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.Dialer(dial))
	default:
		c := &tls.Config{MinVersion: tls.VersionTLS12}
		if l.ca != "" {
			if c.RootCAs, err = dev.Roots(l.ca); err != nil {
				return nil, err
			}
		}
		options = append(options, kgo.DialTLSConfig(c))
	}
	if m, err := l.sasl(); err != nil {
		return nil, err
	} else if m != nil {
		options = append(options, kgo.SASL(m))
	}
	return kgo.NewClient(options...)
}

// announceTime is how long a virtual cluster may take to be named in dev.json.
const announceTime = 5 * time.Second

// admitted says at once that a login is refused: producers and consumers try again as
// long as they are let. What else may be wrong is theirs to wait for.
func admitted(ctx context.Context, cl *kgo.Client) error {
	if err := cl.Ping(ctx); errors.Is(err, kerr.SaslAuthenticationFailed) {
		return err
	}
	return nil
}

// fill takes what was not said from what runs.
func (l *login) fill(info *dev.Info) error {
	if l.ca == "" {
		l.ca = info.CAFile
	}
	if l.bootstrap != "" && l.vc == "" {
		// An address of the gateway says which virtual cluster is meant.
		for _, vc := range info.VirtualClusters {
			if l.bootstrap == vc.Bootstrap || l.bootstrap == vc.PortBootstrap {
				l.vc = vc.Name
			}
		}
		if l.vc == "" {
			return nil
		}
	}
	vc, err := l.virtualCluster(info)
	for end := time.Now().Add(announceTime); err != nil && time.Now().Before(end); {
		// One that was applied a moment ago is named once it serves.
		time.Sleep(50 * time.Millisecond)
		if again, readErr := dev.Read(l.state); readErr == nil {
			*info = *again
		}
		vc, err = l.virtualCluster(info)
	}
	if err != nil {
		return err
	}
	l.vc = vc.Name
	if l.bootstrap == "" {
		l.bootstrap = vc.Bootstrap
		if l.plaintext {
			l.bootstrap = vc.PortBootstrap
		}
	}
	if l.bootstrap == vc.PortBootstrap && vc.PortBootstrap != "" {
		l.plaintext = true
	}
	for _, a := range vc.ServiceAccounts {
		if a.Password == "" || l.password != "" || l.user != "" && l.user != a.Username {
			continue
		}
		l.user, l.password = a.Username, a.Password
		if l.mechanism == "" {
			l.mechanism = a.Mechanisms[len(a.Mechanisms)-1]
		}
	}
	return nil
}

func (l *login) virtualCluster(info *dev.Info) (*dev.VirtualCluster, error) {
	if len(info.VirtualClusters) == 0 {
		return nil, errors.New("the running tollgate dev has no virtual clusters")
	}
	at := slices.IndexFunc(info.VirtualClusters, func(vc dev.VirtualCluster) bool { return vc.Name == l.vc })
	if l.vc == "" {
		at = max(0, slices.IndexFunc(info.VirtualClusters, func(vc dev.VirtualCluster) bool { return vc.Type == "standard" }))
	}
	if at < 0 {
		var names []string
		for _, vc := range info.VirtualClusters {
			names = append(names, vc.Name)
		}
		return nil, fmt.Errorf("no virtual cluster %s: there are %s", l.vc, strings.Join(names, ", "))
	}
	return &info.VirtualClusters[at], nil
}

func (l *login) sasl() (sasl.Mechanism, error) {
	if l.user == "" && l.mechanism == "" || l.mechanism == "none" {
		return nil, nil
	}
	if l.user == "" || l.password == "" {
		return nil, errors.New("--user and --password belong together, and no password is known for the account")
	}
	switch l.mechanism {
	case "PLAIN":
		return plain.Auth{User: l.user, Pass: l.password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: l.user, Pass: l.password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512", "":
		return scram.Auth{User: l.user, Pass: l.password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("--mechanism %s: there are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and none", l.mechanism)
}

// usageError explains a command line that cannot be carried out.
func usageError(f *flag.FlagSet, problem string) error {
	fmt.Fprintln(f.Output(), problem)
	f.Usage()
	return errUsage
}
