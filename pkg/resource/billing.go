package resource

import (
	"maps"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"tollgate.internal/pkg/strictyaml"
)

// PriceBook says what usage costs, from when. At any time a tenant pays by the book
// of its plan whose From was last; a plan that has none yet pays by the books without
// a plan.
type PriceBook struct {
	Metadata Metadata      `yaml:"metadata" json:"metadata"`
	Spec     PriceBookSpec `yaml:"spec" json:"spec"`
}

// PriceBookSpec is in effect from From until that of the next book of its plan.
type PriceBookSpec struct {
	From     time.Time `yaml:"from" json:"from"`
	Plan     string    `yaml:"plan,omitempty" json:"plan,omitempty"` // of tenants; empty: those whose plan has no book
	Currency string    `yaml:"currency" json:"currency"`             // ISO 4217
	Entries  []Price   `yaml:"entries" json:"entries"`
}

// Unit is what is counted.
type Unit string

// The units. Partitions are those of the topics that a virtual cluster owns; the rest
// is what clients sent and were sent.
const (
	UnitGiB             Unit = "GiB"
	UnitMillionRecords  Unit = "million-records"
	UnitMillionRequests Unit = "million-requests"
	UnitPartitionHour   Unit = "partition-hour"
)

// Direction is which way records went, in the words of the usage counters.
type Direction string

// The directions.
const (
	Produced Direction = "produced"
	Fetched  Direction = "fetched"
)

// Decimal is a number of up to 12 digits in front of the point and behind it, kept as
// it was written: money is never a float.
type Decimal string

// Price is what one unit costs. Fields that are left out match everything, and of the
// entries that match the narrowest one counts.
type Price struct {
	Unit      Unit           `yaml:"unit" json:"unit"`
	Price     Decimal        `yaml:"price" json:"price"`
	Direction Direction      `yaml:"direction,omitempty" json:"direction,omitempty"`
	Cluster   string         `yaml:"cluster,omitempty" json:"cluster,omitempty"`
	Topic     *TopicSelector `yaml:"topic,omitempty" json:"topic,omitempty"` // physical, of Cluster
}

// Budget is a limit that nobody is stopped by, and whom to tell on the way to it.
type Budget struct {
	Metadata Metadata   `yaml:"metadata" json:"metadata"`
	Spec     BudgetSpec `yaml:"spec" json:"spec"`
}

// Period is what a budget is for: it begins at midnight UTC of a day, of the first one
// of a month, and so on.
type Period string

// The periods.
const (
	Day     Period = "day"
	Month   Period = "month"
	Quarter Period = "quarter"
	Year    Period = "year"
)

// Owner is who may change a budget.
type Owner string

// The owners. Those who run the gateway may change what is the tenant's, too.
const (
	OwnerOperator Owner = "operator"
	OwnerTenant   Owner = "tenant"
)

// BudgetSpec is about money or bytes, of all virtual clusters of the tenant.
type BudgetSpec struct {
	Owner      Owner   `yaml:"owner,omitempty" json:"owner,omitempty"` // empty: whoever writes it
	Period     Period  `yaml:"period" json:"period"`
	Amount     Decimal `yaml:"amount,omitempty" json:"amount,omitempty"`         // with Currency
	Currency   string  `yaml:"currency,omitempty" json:"currency,omitempty"`     // ISO 4217
	Bytes      int64   `yaml:"bytes,omitempty" json:"bytes,omitempty"`           // produced and fetched, in place of Amount
	Thresholds []int   `yaml:"thresholds,omitempty" json:"thresholds,omitempty"` // in %, ascending; 80 and 100
	Notify     Notify  `yaml:"notify" json:"notify"`
}

// Notify is whom to tell.
type Notify struct {
	Emails   []string `yaml:"emails,omitempty" json:"emails,omitempty"`
	Webhooks []string `yaml:"webhooks,omitempty" json:"webhooks,omitempty"` // https URLs
}

// Kind and Meta make each type an [Object].
func (b *PriceBook) Kind() string    { return KindPriceBook }
func (b *PriceBook) Meta() *Metadata { return &b.Metadata }
func (b *PriceBook) spec() any       { return &b.Spec }

// Kind and Meta make each type an [Object].
func (b *Budget) Kind() string    { return KindBudget }
func (b *Budget) Meta() *Metadata { return &b.Metadata }
func (b *Budget) spec() any       { return &b.Spec }

// Effective reports whether something may have been priced by a book already.
func (b *PriceBook) Effective(now time.Time) bool { return !b.Spec.From.After(now) }

// priceBookClaim is the moment at which a plan begins to pay by a book.
func priceBookClaim(s *PriceBookSpec) Claim {
	return Claim{What: "price book", Value: s.From.UTC().Format(time.RFC3339Nano) + " " + s.Plan}
}

// maxEntries bounds a price book: each pair of entries is compared.
const maxEntries = 1000

// maxPlan is what an index can hold of the name of a plan, and more.
const maxPlan = 200

func (l *validator) validatePriceBook(o *Written, s *PriceBookSpec) {
	switch {
	case s.From.IsZero():
		o.Problem("spec.from", "required: since when it is to be paid, such as 2027-01-01T00:00:00Z")
	case s.From.Year() < 2000 || s.From.Year() > 9999:
		o.Problem("spec.from", "is not a time between the years 2000 and 9999")
	}
	if o.Written("spec.plan") && s.Plan == "" {
		o.Problem("spec.plan", "must not be empty: leave it out for the plans that have no prices of their own")
	}
	if len(s.Plan) > maxPlan || !utf8.ValidString(s.Plan) || strings.ContainsFunc(s.Plan, unicode.IsControl) {
		o.Problem("spec.plan", "must be up to %d bytes of printable text", maxPlan)
	}
	currency(o, "spec.currency", s.Currency)
	if !s.From.IsZero() {
		plan := "plan " + s.Plan
		if s.Plan == "" {
			plan = "plans without prices of their own"
		}
		l.claim(o, priceBookClaim(s), "spec.from", "%s begin at this time to pay by %s already%s: choose another time, or change that one", plan)
	}
	switch {
	case len(s.Entries) == 0:
		o.Problem("spec.entries", "required: at least one price")
	case len(s.Entries) > maxEntries:
		o.Problem("spec.entries", "holds %d prices, more than %d", len(s.Entries), maxEntries)
		return
	}
	for i := range s.Entries {
		validatePrice(o, index("spec.entries", i), &s.Entries[i])
		for j := range i {
			if overlap(&s.Entries[j], &s.Entries[i]) {
				o.Problem(index("spec.entries", i), "overlaps with %s: some usage has both prices, and neither is the narrower one", index("spec.entries", j))
				break
			}
		}
	}
}

func validatePrice(o *Written, field string, p *Price) {
	oneOf(o, field+".unit", &p.Unit, "", UnitGiB, UnitMillionRecords, UnitMillionRequests, UnitPartitionHour)
	decimal(o, field+".price", p.Price)
	if o.Written(field + ".direction") {
		oneOf(o, field+".direction", &p.Direction, "", Produced, Fetched)
		if p.Unit == UnitPartitionHour {
			o.Problem(field+".direction", "has no meaning for a partition-hour: a partition is held, not moved")
		}
	}
	if o.Written(field+".cluster") && p.Cluster == "" {
		o.Problem(field+".cluster", "must not be empty: leave it out for all clusters")
	}
	if p.Topic == nil {
		return
	}
	if p.Cluster == "" {
		o.Problem(field+".cluster", "required beside topic, which is a topic of that cluster")
	}
	oneOf(o, field+".topic.pattern", &p.Topic.Pattern, Literal, Literal, Prefixed)
	physicalTopic(o, field+".topic.name", p.Topic.Name, p.Topic.Pattern == Prefixed)
}

// overlap reports whether something has two prices, none of which is narrower than
// the other.
func overlap(a, b *Price) bool {
	return a.Unit == b.Unit && a.meets(b) && a.within(b) == b.within(a)
}

// meets reports whether there can be something that both match.
func (p *Price) meets(q *Price) bool {
	word := func(a, b string) bool { return a == "" || b == "" || a == b }
	return word(string(p.Direction), string(q.Direction)) && word(p.Cluster, q.Cluster) &&
		(p.Topic == nil || q.Topic == nil || p.Topic.within(*q.Topic) || q.Topic.within(*p.Topic))
}

// within reports whether whatever p matches q does, too.
func (p *Price) within(q *Price) bool {
	word := func(a, b string) bool { return b == "" || a == b }
	return word(string(p.Direction), string(q.Direction)) && word(p.Cluster, q.Cluster) &&
		(q.Topic == nil || p.Topic != nil && p.Topic.within(*q.Topic))
}

// within reports whether whatever t selects u does, too.
func (t TopicSelector) within(u TopicSelector) bool {
	if u.Pattern == Prefixed {
		return strings.HasPrefix(t.Name, u.Name)
	}
	return t.Pattern != Prefixed && t.Name == u.Name
}

// maxNotified bounds how many are told of one budget, which tenants write themselves.
const maxNotified = 20

func validateBudget(o *Written, s *BudgetSpec) {
	if o.Written("spec.owner") {
		oneOf(o, "spec.owner", &s.Owner, "", OwnerOperator, OwnerTenant)
	}
	oneOf(o, "spec.period", &s.Period, "", Day, Month, Quarter, Year)
	money, bytes := o.Written("spec.amount") || o.Written("spec.currency"), o.Written("spec.bytes")
	switch {
	case money && bytes:
		o.Problem("spec.bytes", "has no meaning beside amount and currency: write a budget for each")
	case money:
		decimal(o, "spec.amount", s.Amount)
		if s.Amount != "" && strings.Trim(string(s.Amount), "0.") == "" {
			o.Problem("spec.amount", "must be more than 0")
		}
		currency(o, "spec.currency", s.Currency)
	case !bytes:
		o.Problem("spec.amount", "required, with currency, or bytes in its place")
	case s.Bytes <= 0:
		o.Problem("spec.bytes", "must be more than 0")
	}
	if !o.Written("spec.thresholds") {
		s.Thresholds = []int{80, 100}
	} else if len(s.Thresholds) == 0 {
		o.Problem("spec.thresholds", "needs at least one percentage: leave it out for 80 and 100")
	}
	for i, t := range s.Thresholds {
		switch field := index("spec.thresholds", i); {
		case t < 1 || t > 1000:
			o.Problem(field, "%d is not a percentage from 1 to 1000", t)
		case i > 0 && t <= s.Thresholds[i-1]:
			o.Problem(field, "%d is not more than the one before it: write them in ascending order", t)
		}
	}
	n := &s.Notify
	if total := len(n.Emails) + len(n.Webhooks); total == 0 {
		o.Problem("spec.notify", "required: at least one of emails and webhooks")
	} else if total > maxNotified {
		o.Problem("spec.notify", "tells %d, more than %d", total, maxNotified)
		return
	}
	for i, address := range n.Emails {
		field := index("spec.notify.emails", i)
		switch parsed, err := mail.ParseAddress(address); {
		case err != nil || parsed.Address != address || len(address) > 254:
			o.Problem(field, "%q is no e-mail address such as ops@acme.example", address)
		case slices.Contains(n.Emails[:i], address):
			o.Problem(field, "%q appears twice", address)
		}
	}
	for i, hook := range n.Webhooks {
		field := index("spec.notify.webhooks", i)
		switch why := webhookProblem(hook); {
		case why != "":
			o.Problem(field, "%s", why)
		case slices.Contains(n.Webhooks[:i], hook):
			o.Problem(field, "appears twice")
		}
	}
}

// webhookProblem is what is wrong with a URL that a tenant wants to be called. It may
// hold a secret, so no text shows it.
func webhookProblem(hook string) string {
	u, err := url.Parse(hook)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || len(hook) > 2000 {
		return "is no https URL such as https://hooks.example/budget"
	}
	switch host := strings.ToLower(u.Hostname()); {
	case u.User != nil:
		return "has a user in it, which everybody who reads the budget would see: put a token that is good for nothing else into the path or the query"
	case u.Fragment != "":
		return "has a fragment, which is never sent: leave out what is behind #"
	case host == "localhost" || strings.HasSuffix(host, ".localhost") || !strings.Contains(strings.Trim(host, "."), "."):
		return "names no host on a network: write its full name"
	default:
		if _, err := netip.ParseAddr(host); err == nil || isAddress(host) {
			return "names an IP address: write the name of a host, which its certificate is for"
		}
	}
	return ""
}

var decimalText = regexp.MustCompile(`^(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$`)

func decimal(o *Written, field string, d Decimal) {
	switch {
	case d == "" && !o.Written(field):
		o.Problem(field, "required: a decimal in quotes, such as \"0.035\"")
	case !decimalText.MatchString(string(d)):
		o.Problem(field, "%q is no decimal such as \"0.035\": up to 12 digits in front of the point and 12 behind it, without sign, exponent or separators", string(d))
	}
}

const notADecimal = "must be a decimal in quotes, such as \"0.035\": numbers without them are rounded by some programs that read them"

// special decodes a decimal, which must not go through a float on its way.
func (d *Decimal) special(o *Written, n *yaml.Node, path string) {
	if !strictyaml.IsScalar(n, "!!str") {
		o.Unreadable(path, notADecimal)
		return
	}
	*d = Decimal(n.Value)
}

func currency(o *Written, field, code string) {
	switch {
	case code == "":
		o.Problem(field, "required: a code of ISO 4217, such as EUR")
	case !currencies[code]:
		o.Problem(field, "%q is no code of ISO 4217 that money is counted in, such as EUR", code)
	}
}

// Currencies are the codes that are understood, in order.
func Currencies() []string { return slices.Sorted(maps.Keys(currencies)) }

// currencies are the alphabetic codes of ISO 4217 that somebody pays with: without
// funds, precious metals and codes for tests.
var currencies = func() map[string]bool {
	all := make(map[string]bool)
	for code := range strings.FieldsSeq(`
		AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD
		CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD
		HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD
		MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG
		QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS
		UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG`) {
		all[code] = true
	}
	return all
}()
