package differential

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// metadata is an answer about topics with these names, ids and codes.
func metadata(topics ...kmsg.MetadataResponseTopic) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	resp.Topics = topics
	return resp
}

func topic(name string, id byte, code int16) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID, t.ErrorCode = kmsg.StringPtr(name), [16]byte{id}, code
	return t
}

func side(names map[byte]string, own func(string) bool) *Side {
	return &Side{
		TopicName: func(id [16]byte) (string, bool) { n, ok := names[id[0]]; return n, ok },
		Own:       own,
	}
}

func TestIdsAndOrderAreNoDifferences(t *testing.T) {
	rules := []Rule{{Field: "Topics[].TopicID", As: TopicID}, {Field: "Topics[]", As: Own}}
	bare := Flatten(side(map[byte]string{1: "a", 2: "b"}, func(name string) bool { return name != "foreign" }), rules,
		metadata(topic("a", 1, 0), topic("b", 2, 0), topic("foreign", 3, 0)))
	through := Flatten(side(map[byte]string{7: "a", 8: "b"}, nil), rules, metadata(topic("b", 8, 0), topic("a", 7, 0)))
	if found := Compare(bare, through); len(found) != 0 {
		t.Errorf("Compare = %v, want nothing", found)
	}
}

func TestWhatDiffersIsFound(t *testing.T) {
	rules := []Rule{{Field: "Topics[].TopicID", As: TopicID}}
	names := side(map[byte]string{1: "a", 2: "b"}, nil)
	bare := Flatten(names, rules, metadata(topic("a", 1, 3), topic("b", 2, 0)))
	for _, c := range []struct {
		name string
		resp *kmsg.MetadataResponse
		want []Finding
	}{
		{"a code", metadata(topic("a", 1, 29), topic("b", 2, 0)), []Finding{{"Topics[a].ErrorCode", "3", "29"}}},
		{"the id of another topic", metadata(topic("a", 2, 3), topic("b", 2, 0)), []Finding{{"Topics[a].TopicID", "id of a", "id of b"}}},
		{"an element too few", metadata(topic("a", 1, 3)), []Finding{{"Topics[b]", "there", absent}}},
		{"an element too many", metadata(topic("a", 1, 3), topic("b", 2, 0), topic("c", 1, 0)), []Finding{{"Topics[c]", absent, "there"}}},
		{"no elements", metadata(), []Finding{{"Topics[a]", "there", absent}, {"Topics[b]", "there", absent}}},
	} {
		if got := Compare(bare, Flatten(names, rules, c.resp)); !slices.Equal(got, c.want) {
			t.Errorf("%s: Compare = %v, want %v", c.name, got, c.want)
		}
	}
	if got := Compare(bare, Closed()); !slices.Equal(got, []Finding{{"connection", "answered", "closed"}}) {
		t.Errorf("a closed connection: Compare = %v", got)
	}
}

func TestOnlyWhatIsListedMayDifferAndMust(t *testing.T) {
	at := func(version int16, findings ...Finding) Comparison {
		return Comparison{Kafka: "4.3.1", Key: 3, Version: version, Case: "a topic", Findings: findings}
	}
	code := Finding{"Topics[a].ErrorCode", "3", "29"}
	entry := Difference{Key: 3, Versions: "1-2", Field: "Topics[].ErrorCode", Reason: "so it is"}
	for _, c := range []struct {
		name            string
		comparisons     []Comparison
		list            []Difference
		unlisted, stale int
	}{
		{"nothing differs and nothing is listed", []Comparison{at(1)}, nil, 0, 0},
		{"it is listed", []Comparison{at(1, code), at(2, code)}, []Difference{entry}, 0, 0},
		{"it is not listed", []Comparison{at(1, code)}, nil, 1, 0},
		{"the same at two versions is told once", []Comparison{at(1, code), at(2, code)}, nil, 1, 0},
		{"it is listed for other versions", []Comparison{at(1, code), at(2, code), at(3, code)}, []Difference{entry}, 1, 0},
		{"one of the versions does not differ", []Comparison{at(1, code), at(2)}, []Difference{entry}, 0, 1},
		{"it is listed for another key", []Comparison{at(1, code)}, []Difference{{Key: 4, Field: "Topics[].ErrorCode"}}, 1, 1},
		{"it is listed for another case", []Comparison{at(1, code)}, []Difference{{Key: 3, Case: "two topics", Field: "Topics[].ErrorCode"}}, 1, 1},
		{"it is listed for another Kafka", []Comparison{at(1, code)}, []Difference{{Key: 3, Kafka: "3.9.2", Field: "Topics[].ErrorCode"}}, 1, 1},
	} {
		unlisted, stale := Judge(c.comparisons, c.list)
		if len(unlisted) != c.unlisted || len(stale) != c.stale {
			t.Errorf("%s: Judge = %q, %q, want %d and %d", c.name, unlisted, stale, c.unlisted, c.stale)
		}
	}
}

func TestVersionsAreWrittenAsRanges(t *testing.T) {
	if got := Ranges([]int16{7, 3, 4, 5, 5, 9, 10}); got != "3-5,7,9-10" {
		t.Errorf("Ranges = %q, want 3-5,7,9-10", got)
	}
}
