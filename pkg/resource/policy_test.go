package resource

import (
	"slices"
	"strings"
	"testing"
)

func policy(spec string) string {
	return doc("Policy", "name: p, virtualCluster: shop", spec)
}

func TestPoliciesThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"a good one", policy(`type: produce, scope: {principals: ["User:x"], topics: [{name: ., pattern: prefixed}]}, config: {acks: leader}`), nil},
		{"nothing at all", policy(""), []string{"spec.type: required: one of produce", "spec.config: asks for nothing"}},
		{"another type", policy("type: fetch, config: {acks: all}"), []string{`spec.type: unknown word "fetch": one of produce`}},
		{"a field of another type", policy("type: produce, config: {acks: all, maxRecords: 1}"), []string{"spec.config.maxRecords: unknown field"}},
		{"acks of some kind", policy("type: produce, config: {acks: most}"), []string{`spec.config.acks: unknown word "most": one of all, leader`}},
		{"acks by number", policy("type: produce, config: {acks: 1}"), []string{"spec.config.acks: must be a string"}},
		{"a codec nobody has", policy("type: produce, config: {compression: [zstd, brotli, zstd]}"), []string{`spec.config.compression[1]: unknown word "brotli"`, `spec.config.compression[2]: "zstd" appears twice`}},
		{"no codec", policy("type: produce, config: {compression: []}"), []string{"spec.config.compression: needs at least one"}},
		{"batches of nothing", policy("type: produce, config: {maxBatchBytes: 61}"), []string{"spec.config.maxBatchBytes: must be more than 61"}},
		{"batches of less", policy("type: produce, config: {maxBatchBytes: -1}"), []string{"spec.config.maxBatchBytes: must be more than 61"}},
		{"idempotent, and not", policy("type: produce, config: {acks: leader, idempotent: true}"), []string{"spec.config.acks: contradicts idempotent"}},
		{"asks for nothing", policy("type: produce, config: {idempotent: false}"), []string{"spec.config: asks for nothing"}},
		{"nobody", policy(`type: produce, scope: {principals: [], accountLabels: {}, topics: []}, config: {acks: all}`), []string{
			"spec.scope.principals: must not be empty", "spec.scope.accountLabels: must not be empty", "spec.scope.topics: must not be empty",
		}},
		{"strange scopes", policy(`type: produce, scope: {principals: [x], accountLabels: {"a b": "c,d"}, topics: [{name: ""}, {name: "a b"}, {name: a, pattern: regex}]}, config: {acks: all}`), []string{
			`spec.scope.principals[0]: "x" has no type: write User:x`, "spec.scope.accountLabels.a b: is no label", "spec.scope.topics[0].name: required", "spec.scope.topics[1].name: topic name",
			"spec.scope.topics[2].pattern: unknown word",
		}},
		{"of all virtual clusters", doc("Policy", "name: p", `type: produce, scope: {virtualClusterLabels: {tier: gold}, exceptVirtualClusterLabels: {exempt: ""}}, config: {acks: all}`), nil},
		{"of all, by an empty name", doc("Policy", `name: p, virtualCluster: ""`, "type: produce, config: {acks: all}"), []string{"metadata.virtualCluster: must not be empty"}},
		{"of all, and somebody's", doc("Policy", "name: p, tenant: acme", "type: produce, config: {acks: all}"), []string{"metadata.tenant: has no meaning for a Policy"}},
		{"of one, by its labels", policy("type: produce, scope: {virtualClusterLabels: {a: b}, exceptVirtualClusterLabels: {a: b}}, config: {acks: all}"), []string{"spec.scope.virtualClusterLabels: has no meaning", "spec.scope.exceptVirtualClusterLabels: has no meaning"}},
		{"of all, by no labels", doc("Policy", "name: p", `type: produce, scope: {virtualClusterLabels: {}, exceptVirtualClusterLabels: {"a b": c}}, config: {acks: all}`), []string{"spec.scope.virtualClusterLabels: must not be empty", "spec.scope.exceptVirtualClusterLabels.a b: is no label that a VirtualCluster can have"}},
		{"of no virtual cluster", doc("Policy", "name: p, virtualCluster: nobody", "type: produce, config: {acks: all}"), []string{`metadata.virtualCluster: there is no VirtualCluster "nobody"`}},
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
		})
	}
}
