package dev

import (
	"reflect"
	"testing"

	"tollgate.internal/pkg/resource"
	"tollgate.internal/services/proxy"
)

func TestEveryClusterOfAVirtualClusterHasPorts(t *testing.T) {
	const west = 5 << 16
	ports := func(clusters []string, nodes map[string][]int32) []proxy.PortRange {
		vc := &resource.VirtualCluster{Spec: resource.VirtualClusterSpec{
			Home: "main", Clusters: clusters, Slots: map[string]int32{"west": 5},
			Authentication: resource.Authentication{Anonymous: new(struct{})},
		}}
		l, ok := portListener(vc, "127.0.0.1", 9501, nodes)
		if !ok || l.Address != "127.0.0.1:9501" {
			t.Fatalf("listener %+v, %t", l, ok)
		}
		return l.BrokerPorts
	}
	for _, c := range []struct {
		name     string
		clusters []string
		nodes    map[string][]int32
		want     []proxy.PortRange
	}{
		{
			"one cluster has room for brokers to come",
			[]string{"main"},
			map[string][]int32{"main": {0, 1, 2}},
			[]proxy.PortRange{{First: 9502, Count: 19}},
		},
		{
			"of two, home keeps its ports",
			[]string{"west", "main"},
			map[string][]int32{"main": {0, 1, 2}, "west": {1}},
			[]proxy.PortRange{{First: 9502, Count: 9}, {First: 9511, Count: 9, Lowest: west}},
		},
		{
			"sparse ids have a port each",
			[]string{"main", "west"},
			map[string][]int32{"main": {2, 7, 1004}, "west": {7}},
			[]proxy.PortRange{
				{First: 9502, Count: 1, Lowest: 2},
				{First: 9503, Count: 1, Lowest: 7},
				{First: 9504, Count: 1, Lowest: 1004},
				{First: 9511, Count: 9, Lowest: west},
			},
		},
		{
			"a cluster that was never seen has its share",
			[]string{"main", "west"},
			map[string][]int32{"main": {0}},
			[]proxy.PortRange{{First: 9502, Count: 9}, {First: 9511, Count: 9, Lowest: west}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ports(c.clusters, c.nodes); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
