package differential

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Difference says where a gateway answers otherwise than a broker, and why.
type Difference struct {
	Key      int16
	Versions string // "3-9" or "3-9,11"; "": all that are compared
	Kafka    string // a version of Kafka; "": all
	Case     string // of the key's cases; "": any
	Field    string // as [Finding.Field]
	Reason   string
}

func (d Difference) String() string {
	return fmt.Sprintf("{Key: %d, Versions: %q, Kafka: %q, Case: %q, Field: %q}", d.Key, d.Versions, d.Kafka, d.Case, d.Field)
}

// covers reports whether the difference holds for this version.
func (d Difference) covers(version int16) bool {
	if d.Versions == "" {
		return true
	}
	for part := range strings.SplitSeq(d.Versions, ",") {
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		l, err1 := strconv.Atoi(low)
		h, err2 := strconv.Atoi(high)
		if err1 != nil || err2 != nil {
			panic(fmt.Sprintf("versions %q", d.Versions))
		}
		if int(version) >= l && int(version) <= h {
			return true
		}
	}
	return false
}

// Ranges writes versions as Difference.Versions has them.
func Ranges(versions []int16) string {
	slices.Sort(versions)
	versions = slices.Compact(versions)
	var parts []string
	for i := 0; i < len(versions); {
		j := i
		for j+1 < len(versions) && versions[j+1] == versions[j]+1 {
			j++
		}
		part := strconv.Itoa(int(versions[i]))
		if j > i {
			part += "-" + strconv.Itoa(int(versions[j]))
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// A Comparison is one case of one key in one version on one version of Kafka,
// and what differed.
type Comparison struct {
	Kafka    string
	Key      int16
	Version  int16
	Case     string
	Findings []Finding
}

// Judge holds comparisons against the list. It returns the findings that are not
// listed, and the entries that do not hold: for each version of Kafka and of the
// key that an entry names, it must have been found.
func Judge(comparisons []Comparison, list []Difference) (unlisted []string, stale []string) {
	type occurrence struct {
		entry   int
		kafka   string
		version int16
	}
	found := make(map[occurrence]bool)
	expected := make(map[occurrence]bool)
	open := newGroups()
	for _, c := range comparisons {
		for i, d := range list {
			if d.Key == c.Key && (d.Kafka == "" || d.Kafka == c.Kafka) && (d.Case == "" || d.Case == c.Case) && d.covers(c.Version) {
				expected[occurrence{i, c.Kafka, c.Version}] = true
			}
		}
		for _, f := range c.Findings {
			listed := false
			for i, d := range list {
				if d.Key == c.Key && (d.Kafka == "" || d.Kafka == c.Kafka) && (d.Case == "" || d.Case == c.Case) &&
					d.covers(c.Version) && d.Field == f.Field() {
					listed = true
					found[occurrence{i, c.Kafka, c.Version}] = true
				}
			}
			if !listed {
				open.add(c, f)
			}
		}
	}
	missing := newGroups()
	named := make(map[int]bool)
	for o := range expected {
		named[o.entry] = true
		if !found[o] {
			missing.add(Comparison{Kafka: o.kafka, Version: o.version}, Finding{Path: fmt.Sprintf("%06d %v", o.entry, list[o.entry])})
		}
	}
	for i, d := range list {
		if !named[i] {
			stale = append(stale, fmt.Sprintf("%v: nothing like it is compared", d))
		}
	}
	for _, g := range missing.sorted() {
		stale = append(stale, fmt.Sprintf("%s: not found on %s at versions %s", g.finding.Path[7:], strings.Join(g.kafkas(), ", "), Ranges(g.versions)))
	}
	for _, g := range open.sorted() {
		unlisted = append(unlisted, fmt.Sprintf("key %d versions %s on %s, %s: %s: %s, through the gateway %s",
			g.key, Ranges(g.versions), strings.Join(g.kafkas(), ", "), g.name, g.finding.Path, g.finding.Bare, g.finding.Gateway))
	}
	return unlisted, stale
}

// groups gathers the versions in which the same was found.
type groups struct {
	byText map[string]*group
	order  []*group
}

type group struct {
	key      int16
	name     string
	finding  Finding
	versions []int16
	kafka    map[string]bool
}

func newGroups() *groups { return &groups{byText: make(map[string]*group)} }

func (gs *groups) add(c Comparison, f Finding) {
	text := fmt.Sprint(c.Key, "\x00", c.Case, "\x00", f)
	g := gs.byText[text]
	if g == nil {
		g = &group{key: c.Key, name: c.Case, finding: f, kafka: make(map[string]bool)}
		gs.byText[text] = g
		gs.order = append(gs.order, g)
	}
	g.versions = append(g.versions, c.Version)
	g.kafka[c.Kafka] = true
}

func (gs *groups) sorted() []*group {
	slices.SortStableFunc(gs.order, func(a, b *group) int {
		if a.key != b.key {
			return int(a.key) - int(b.key)
		}
		return strings.Compare(a.finding.Path, b.finding.Path)
	})
	return gs.order
}

func (g *group) kafkas() []string {
	var all []string
	for k := range g.kafka {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}
