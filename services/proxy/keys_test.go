package proxy_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestAccountsAreShownWithoutSecrets(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	admin := kadm.NewClient(g.client(t, "acme-dev.gw.test", loginDev))
	described, err := admin.DescribeUserSCRAMs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(described) != 1 || described["dev"].Err != nil || len(described["dev"].CredInfos) != 2 {
		t.Fatalf("credentials %+v, want two of dev", described)
	}
	for i, want := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		if got := described["dev"].CredInfos[i]; got.Mechanism != want || got.Iterations < 4096 {
			t.Errorf("credential %+v, want %v and 4096 iterations or more", got, want)
		}
	}
}

func TestQuotasAreShown(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	g.replace(t, "all.yaml", "host: open, home: main,", "host: open, home: main, quotas: {produceBytesPerSecond: 1000, requestsPerSecond: 7},")
	admin := kadm.NewClient(g.client(t, "open.gw.test"))
	component := func(entity string, match kmsg.QuotasMatchType) kadm.DescribeClientQuotaComponent {
		return kadm.DescribeClientQuotaComponent{Type: entity, MatchType: match}
	}
	describe := func(strict bool, filter ...kadm.DescribeClientQuotaComponent) map[string]float64 {
		t.Helper()
		described, err := admin.DescribeClientQuotas(ctx, strict, filter)
		if err != nil {
			t.Fatal(err)
		}
		values := make(map[string]float64)
		for _, d := range described {
			if len(d.Entity) != 1 || d.Entity[0].Type != "user" || d.Entity[0].Name != nil {
				t.Errorf("quotas of %v, want the default user's", d.Entity)
			}
			for _, v := range d.Values {
				values[v.Key] = v.Value
			}
		}
		return values
	}
	eventually(t, "the quotas to be shown", func() bool {
		v := describe(false)
		return len(v) == 2 && v["producer_byte_rate"] == 1000 && v["requests_per_second"] == 7
	})
	for _, c := range []struct {
		name   string
		strict bool
		filter []kadm.DescribeClientQuotaComponent
		want   int
	}{
		{"the default user", true, []kadm.DescribeClientQuotaComponent{component("user", kmsg.QuotasMatchTypeDefault)}, 2},
		{"any user", false, []kadm.DescribeClientQuotaComponent{component("user", kmsg.QuotasMatchTypeAny)}, 2},
		{"client ids", false, []kadm.DescribeClientQuotaComponent{component("client-id", kmsg.QuotasMatchTypeAny)}, 0},
		{"users with a client id", true, []kadm.DescribeClientQuotaComponent{component("user", kmsg.QuotasMatchTypeAny), component("client-id", kmsg.QuotasMatchTypeAny)}, 0},
	} {
		if got := describe(c.strict, c.filter...); len(got) != c.want {
			t.Errorf("%s: %v, want %d values", c.name, got, c.want)
		}
	}
}
