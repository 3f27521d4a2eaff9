package bench

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// spanned is what is asked of a virtual cluster of one cluster and of one of two.
var spanned = []workload{
	{Key: int16(kmsg.Produce), Version: 12, Bytes: 1 << 10},
	{Key: int16(kmsg.Produce), Version: 13, Bytes: 1 << 10},
	{Key: int16(kmsg.Produce), Version: 12, Bytes: 64 << 10},
	{Key: int16(kmsg.Fetch), Version: 12, Bytes: 64 << 10},
	{Key: int16(kmsg.Fetch), Version: 17, Bytes: 64 << 10},
}

// span measures what it costs that a virtual cluster spans.
func (b *run) span(ctx context.Context) error {
	second := stubTopic{topic{secondName, stubTopicID(2)}, 1}
	main, mainAddress, err := b.startStub(ctx, mainCluster, theTopic, second)
	if err != nil {
		return err
	}
	other, otherAddress, err := b.startStub(ctx, otherCluster, second)
	if err != nil {
		return err
	}
	s, err := b.startGateway(ctx, "tollgate spanning", b.Gateway, spanningResources(mainAddress.Plaintext, otherAddress.Plaintext, withoutStubs))
	if err != nil {
		return err
	}
	for _, w := range spanned {
		sides := []*usage{
			{target: s.to(single, "one cluster"), server: s},
			{target: s.to(spanning, "two, on home"), server: s},
			{target: s.to(spanning, "two, on the other"), server: s},
		}
		sides[2].target.Topic = secondAlias
		if err := b.checked(ctx, w, sides, main, other); err != nil {
			return err
		}
		b.report.addSpanning(w, sides)
	}
	return nil
}
