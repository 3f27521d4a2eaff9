package fleet

import (
	"fmt"
	"strings"

	"tollgate.internal/pkg/bundle"
)

// A Deployment names a fleet and its portals among those that share a Redis. Two
// deployments never read each other's keys.
type Deployment string

// DefaultDeployment is the name where a fleet shares its Redis with no other.
const DefaultDeployment Deployment = "default"

// Check says what is wrong with the name: it is 1 to 63 letters, digits, - and _.
func (d Deployment) Check() error {
	ok := len(d) > 0 && len(d) <= 63 && !strings.ContainsFunc(string(d), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
	if !ok {
		return fmt.Errorf("deployment %q: must be 1 to 63 letters, digits, - and _", string(d))
	}
	return nil
}

// Key is a key of this deployment.
func (d Deployment) Key(parts ...string) string {
	return "tollgate:" + string(d) + ":" + strings.Join(parts, ":")
}

func (d Deployment) bundle(id bundle.ID) string {
	switch id.Kind {
	case bundle.UpstreamCluster:
		return d.Key("upstream", id.Name)
	case bundle.Policies:
		return d.Key("policies")
	}
	return d.Key("vc", id.Name)
}

func (d Deployment) host(host string) string  { return d.Key("host", host) }
func (d Deployment) head() string             { return d.Key("head") }
func (d Deployment) changes() string          { return d.Key("changes") }
func (d Deployment) node(id string) string    { return d.Key("node", id) }
func (d Deployment) nodes() string            { return d.Key("nodes") }
func (d Deployment) answers(to string) string { return d.Key("answers", to) }

// virtualClusters matches the keys of virtual clusters' bundles.
func (d Deployment) virtualClusters() string { return d.Key("vc", "*") }
