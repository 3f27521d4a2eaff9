package resource

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func book(spec string) string { return doc("PriceBook", "name: p", spec) }

func entries(list string) string {
	return book("from: 2027-01-01T00:00:00Z, currency: EUR, entries: [" + list + "]")
}

func budget(spec string) string {
	return doc("Budget", "name: b, tenant: acme", spec)
}

const told = ", notify: {emails: [a@b.example]}"

func TestPriceBooksAndBudgetsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"a price for everything", entries(`{unit: GiB, price: "0.035"}, {unit: million-requests, price: "0"}, {unit: partition-hour, price: "12"}`), nil},
		{"the narrower one counts", entries(`{unit: GiB, price: "1"}, {unit: GiB, direction: produced, price: "2"}, {unit: GiB, direction: produced, cluster: main, price: "3"},
			{unit: GiB, direction: produced, cluster: main, topic: {name: a, pattern: prefixed}, price: "4"}, {unit: GiB, direction: produced, cluster: main, topic: {name: ab}, price: "5"}`), nil},
		{"nothing at all", book(""), []string{"spec.from: required", "spec.currency: required: a code of ISO 4217", "spec.entries: required: at least one price"}},
		{"a time without a zone", book(`from: 2027-01-01T00:00:00, currency: EUR, entries: [{unit: GiB, price: "1"}]`), []string{"spec.from: must be a time with its zone, such as 2027"}},
		{"a day", book(`from: 2027-01-01, currency: EUR, entries: [{unit: GiB, price: "1"}]`), []string{"spec.from: must be a time with its zone"}},
		{"a currency of yesterday", book(`from: 2027-01-01T00:00:00Z, currency: DEM, entries: [{unit: GiB, price: "1"}]`), []string{`spec.currency: "DEM" is no code of ISO 4217`}},
		{"a currency in small letters", book(`from: 2027-01-01T00:00:00Z, currency: eur, entries: [{unit: GiB, price: "1"}]`), []string{`spec.currency: "eur" is no code`}},
		{"an empty plan", book(`from: 2027-01-01T00:00:00Z, plan: "", currency: EUR, entries: [{unit: GiB, price: "1"}]`), []string{"spec.plan: must not be empty"}},
		{"a float", entries(`{unit: GiB, price: 0.1}`), []string{`spec.entries[0].price: must be a decimal in quotes`}},
		{"a number", entries(`{unit: GiB, price: 1}`), []string{`spec.entries[0].price: must be a decimal in quotes`}},
		{"no price", entries(`{unit: GiB}`), []string{"spec.entries[0].price: required"}},
		{"no unit", entries(`{price: "1"}`), []string{"spec.entries[0].unit: required: one of GiB"}},
		{"another unit", entries(`{unit: GB, price: "1"}`), []string{`spec.entries[0].unit: unknown word "GB"`}},
		{"a partition that moves", entries(`{unit: partition-hour, direction: fetched, price: "1"}`), []string{"spec.entries[0].direction: has no meaning for a partition-hour"}},
		{"another direction", entries(`{unit: GiB, direction: up, price: "1"}`), []string{`spec.entries[0].direction: unknown word "up"`}},
		{"a topic of no cluster", entries(`{unit: GiB, topic: {name: a}, price: "1"}`), []string{"spec.entries[0].cluster: required beside topic"}},
		{"the brokers' own topic", entries(`{unit: GiB, cluster: main, topic: {name: __consumer_offsets}, price: "1"}`), []string{"spec.entries[0].topic.name: \"__consumer_offsets\" is the brokers' own"}},
		{"twice the same", entries(`{unit: GiB, price: "1"}, {unit: GiB, price: "1"}`), []string{"spec.entries[1]: overlaps with spec.entries[0]"}},
		{"two ways to be narrower", entries(`{unit: GiB, direction: produced, price: "1"}, {unit: GiB, cluster: west, price: "2"}`), []string{"spec.entries[1]: overlaps with spec.entries[0]"}},
		{"a prefix across a direction", entries(`{unit: GiB, cluster: main, topic: {name: a, pattern: prefixed}, price: "1"}, {unit: GiB, direction: fetched, cluster: main, price: "2"}`), []string{"spec.entries[1]: overlaps"}},
		{"another unit is something else", entries(`{unit: GiB, direction: produced, price: "1"}, {unit: million-records, cluster: west, price: "2"}`), nil},
		{"what never meets", entries(`{unit: GiB, direction: produced, price: "1"}, {unit: GiB, direction: fetched, price: "2"}, {unit: million-records, cluster: west, price: "1"}, {unit: million-records, cluster: main, price: "1"}`), nil},
		{"a book of a tenant", doc("PriceBook", "name: p, tenant: acme", `from: 2027-01-01T00:00:00Z, currency: EUR, entries: [{unit: GiB, price: "1"}]`), []string{"metadata.tenant: has no meaning for a PriceBook"}},
		{
			"two books of one time, in two zones", entries(`{unit: GiB, price: "1"}`) + "---\n" +
				doc("PriceBook", "name: q", `from: 2027-01-01T01:00:00+01:00, currency: USD, entries: [{unit: GiB, price: "1"}]`),
			[]string{"spec.from: plans without prices of their own begin at this time to pay by PriceBook p already, in"},
		},
		{"two books of two plans", entries(`{unit: GiB, price: "1"}`) + "---\n" + doc("PriceBook", "name: q", `from: 2027-01-01T00:00:00Z, plan: gold, currency: EUR, entries: [{unit: GiB, price: "1"}]`), nil},

		{"a budget of money", budget(`period: month, amount: "100", currency: JPY` + told), nil},
		{"a budget of bytes", budget(`period: year, bytes: 1` + told), nil},
		{"a budget of nothing", budget(""), []string{"spec.period: required", "spec.amount: required, with currency, or bytes", "spec.notify: required"}},
		{"a budget of both", budget(`period: day, amount: "1", currency: EUR, bytes: 1` + told), []string{"spec.bytes: has no meaning beside amount"}},
		{"a budget without a currency", budget(`period: day, amount: "1"` + told), []string{"spec.currency: required"}},
		{"a budget without an amount", budget(`period: day, currency: EUR` + told), []string{"spec.amount: required"}},
		{"a budget of no money", budget(`period: day, amount: "0.00", currency: EUR` + told), []string{"spec.amount: must be more than 0"}},
		{"a budget of minus one", budget(`period: day, amount: "-1", currency: EUR` + told), []string{`spec.amount: "-1" is no decimal`}},
		{"a budget of no bytes", budget(`period: day, bytes: 0` + told), []string{"spec.bytes: must be more than 0"}},
		{"a budget of a week", budget(`period: week, bytes: 1` + told), []string{`spec.period: unknown word "week"`}},
		{"thresholds out of order", budget(`period: day, bytes: 1, thresholds: [100, 80, 80, 0, 1001]` + told), []string{
			"spec.thresholds[1]: 80 is not more", "spec.thresholds[2]: 80 is not more", "spec.thresholds[3]: 0 is not a percentage", "spec.thresholds[4]: 1001 is not a percentage",
		}},
		{"no thresholds", budget(`period: day, bytes: 1, thresholds: []` + told), []string{"spec.thresholds: needs at least one"}},
		{"addresses that are none", budget(`period: day, bytes: 1, notify: {emails: ["", ops, "Ops <ops@acme.example>", a@b.example, a@b.example]}`), []string{
			"spec.notify.emails[0]", "spec.notify.emails[1]", "spec.notify.emails[2]", "spec.notify.emails[4]: \"a@b.example\" appears twice",
		}},
		{
			"webhooks that are none", budget(`period: day, bytes: 1, notify: {webhooks: ["http://a.example/", "https://u:hunter2@a.example", "https://127.0.0.1/", "https://127.1/", "https://[::1]/",
			"https://localhost/", "https://metadata/", "https://a.example/#x", "file:///etc/passwd", "https://a.example:8443/x"]}`),
			[]string{
				"spec.notify.webhooks[0]: is no https URL", "spec.notify.webhooks[1]: has a user in it", "spec.notify.webhooks[2]: names an IP address", "spec.notify.webhooks[3]: names an IP address",
				"spec.notify.webhooks[4]: names", "spec.notify.webhooks[5]: names no host", "spec.notify.webhooks[6]: names no host", "spec.notify.webhooks[7]: has a fragment", "spec.notify.webhooks[8]: is no https URL",
			},
		},
		{"a budget of nobody", doc("Budget", "name: b", "period: day, bytes: 1"+told), []string{"metadata.tenant: required"}},
		{"a budget of a stranger", doc("Budget", "name: b, tenant: nobody", "period: day, bytes: 1"+told), []string{`metadata.tenant: there is no Tenant "nobody"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := load(t, base+c.text)
			if len(problems) != len(c.want) {
				t.Fatalf("problems %q, want %q", problems, c.want)
			}
			for _, want := range c.want {
				if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.String(), want) }) {
					t.Errorf("problems %q, want %q", problems, want)
				}
			}
			if strings.Contains(problems.Error(), "hunter2") {
				t.Errorf("problems show a password: %q", problems)
			}
		})
	}
}

func TestDefaultsOfABudget(t *testing.T) {
	var problems Problems
	objects := Parse([]byte(base+budget("period: day, bytes: 1"+told)), &problems)
	Validate(objects, nil, testNow)
	if problems != nil {
		t.Fatal(problems)
	}
	if got := objects[len(objects)-1].Object.(*Budget).Spec.Thresholds; !slices.Equal(got, []int{80, 100}) {
		t.Errorf("thresholds %v, want 80 and 100", got)
	}
}

// A price list is searched in a store of 1,000 entries at most, each compared with each.
func TestALongPriceBookIsReadInTime(t *testing.T) {
	var list []string
	for i := range maxEntries {
		list = append(list, `{unit: GiB, cluster: main, topic: {name: t`+strings.Repeat("x", i%200)+"-"+string(rune('a'+i/200))+`}, price: "1"}`)
	}
	start := time.Now()
	if _, problems := load(t, base+entries(strings.Join(list, ", "))); problems != nil {
		t.Error(problems)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	if _, problems := load(t, base+entries(strings.Join(append(list, list[0]), ", "))); len(problems) != 1 || !strings.Contains(problems[0].Message, "holds 1001 prices") {
		t.Errorf("one more: %q", problems)
	}
}
