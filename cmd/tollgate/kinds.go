package main

import (
	"fmt"
	"slices"
	"strings"

	"tollgate.internal/pkg/resource"
)

// shortNames are what people type. The first is the kind's name in lists of names.
var shortNames = map[string][]string{
	resource.KindTenant:          {"tenant", "tn"},
	resource.KindUpstreamCluster: {"upstream-cluster", "upstream", "uc"},
	resource.KindVirtualCluster:  {"virtual-cluster", "vc"},
	resource.KindTopicGrant:      {"topic-grant", "grant", "tg"},
	resource.KindAliasTopic:      {"alias-topic", "alias", "at"},
	resource.KindServiceAccount:  {"service-account", "account", "sa"},
	resource.KindACL:             {"acl"},
	resource.KindPolicy:          {"policy"},
	resource.KindPriceBook:       {"price-book", "book", "pb"},
	resource.KindBudget:          {"budget"},
}

// kindNamed finds a kind by its name, plural or a short name, in whatever spelling:
// AliasTopic, alias-topics, aliases.
func kindNamed(name string) (resource.Kind, error) {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "") }
	for _, k := range resource.Kinds {
		names := []string{k.Name, k.Plural}
		for _, short := range shortNames[k.Name] {
			names = append(names, short, short+"s", short+"es")
		}
		if slices.ContainsFunc(names, func(n string) bool { return plain(n) == plain(name) }) {
			return k, nil
		}
	}
	return resource.Kind{}, usagef("no kind %q: there are %s", name, strings.Join(plurals(), ", "))
}

// kindsNamed are the kinds of a list such as vc,sa; "all" are all.
func kindsNamed(list string) ([]resource.Kind, error) {
	if list == "all" {
		return resource.Kinds, nil
	}
	var kinds []resource.Kind
	for name := range strings.SplitSeq(list, ",") {
		k, err := kindNamed(name)
		if err != nil {
			return nil, err
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

func plurals() []string {
	names := make([]string, len(resource.Kinds))
	for i, k := range resource.Kinds {
		names[i] = k.Plural
	}
	return names
}

func singular(kind string) string { return shortNames[kind][0] }

// nameOf is how a command line names an object: virtual-cluster/acme-prod,
// alias-topic/acme-prod/orders.
func nameOf(key resource.Key) string {
	if key.Scope == "" {
		return singular(key.Kind) + "/" + key.Name
	}
	return singular(key.Kind) + "/" + key.Scope + "/" + key.Name
}

// scope is the tenant or virtual cluster that a command is about.
type scope struct{ tenant, vc string }

// of is the scope for a kind; empty where none was named.
func (s *scope) of(k resource.Kind) string {
	switch k.Scope {
	case resource.KindTenant:
		return s.tenant
	case resource.KindVirtualCluster:
		return s.vc
	}
	return ""
}

// flagFor is the flag that names the scope of a kind.
func flagFor(k resource.Kind) string {
	if k.Scope == resource.KindTenant {
		return "--tenant"
	}
	return "--vc"
}

// key is the object of a kind by a name, which may have its scope in front: SCOPE/NAME. A
// policy without one is that of all virtual clusters.
func (s *scope) key(k resource.Kind, name string) (resource.Key, error) {
	owner, rest, scoped := strings.Cut(name, "/")
	switch {
	case k.Scope == "" && scoped:
		return resource.Key{}, usagef("%s %q: the name has a slash, and the names of %s are unique everywhere", singular(k.Name), name, k.Plural)
	case k.Scope == "":
		owner, rest = "", name
	case !scoped:
		if owner, rest = s.of(k), name; owner == "" && !k.Everywhere() {
			return resource.Key{}, usagef("%s %q: say where it is: %s/%s or %s", singular(k.Name), name, strings.ToUpper(strings.TrimPrefix(flagFor(k), "--")), name, flagFor(k))
		}
	}
	if rest == "" || scoped && owner == "" {
		return resource.Key{}, usagef("%q names no %s", name, singular(k.Name))
	}
	return resource.Key{Kind: k.Name, Scope: owner, Name: rest}, nil
}

// target is what arguments name: objects, or kinds as a whole.
type target struct {
	kinds []resource.Kind // all of these
	keys  []resource.Key
}

// targets reads KIND, KIND NAME… and KIND/NAME….
func (s *scope) targets(args []string) (t target, err error) {
	if len(args) == 0 {
		return t, usagef("name a kind, such as %s, or an object, such as virtual-cluster/NAME", strings.Join(plurals(), ", "))
	}
	if !strings.Contains(args[0], "/") {
		if t.kinds, err = kindsNamed(args[0]); err != nil || len(args) == 1 {
			return t, err
		}
		if len(t.kinds) != 1 {
			return t, usagef("%s are several kinds: a name belongs to one", args[0])
		}
		for _, name := range args[1:] {
			key, err := s.key(t.kinds[0], name)
			if err != nil {
				return t, err
			}
			t.keys = append(t.keys, key)
		}
		t.kinds = nil
		return t, nil
	}
	for _, arg := range args {
		kind, name, ok := strings.Cut(arg, "/")
		if !ok {
			return t, usagef("%q: write KIND/NAME, as the others are", arg)
		}
		k, err := kindNamed(kind)
		if err != nil {
			return t, err
		}
		key, err := s.key(k, name)
		if err != nil {
			return t, err
		}
		t.keys = append(t.keys, key)
	}
	return t, nil
}

// one is for commands about a single object.
func (s *scope) one(args []string) (resource.Key, error) {
	t, err := s.targets(args)
	if err != nil {
		return resource.Key{}, err
	}
	if len(t.keys) != 1 {
		return resource.Key{}, usagef("name one object: KIND NAME or KIND/NAME")
	}
	return t.keys[0], nil
}

// usageProblem is a command line that cannot be carried out.
type usageProblem struct{ text string }

func (e *usageProblem) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageProblem{fmt.Sprintf(format, args...)} }
