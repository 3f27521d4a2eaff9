package session

import (
	"testing"

	"tollgate.internal/services/proxy/internal/wire"
)

// policies are some that what these tests produce passes.
const policies = `
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: a, virtualCluster: open}, spec: {type: produce, config: {acks: leader, compression: [none], maxBatchBytes: 1000000}}}
---
{apiVersion: tollgate/v1, kind: Policy, metadata: {name: b, virtualCluster: open}, spec: {type: produce, scope: {topics: [{name: or, pattern: prefixed}]}, config: {idempotent: true}}}
`

// What a Produce request costs before it is sent on, with policies and without: a
// session that has none is not to notice that there are such things.
func BenchmarkProduceRequest(b *testing.B) {
	for name, more := range map[string]string{"without policies": "", "with policies": policies} {
		b.Run(name, func(b *testing.B) {
			h := newHotSession(b, newHotBroker(b, "open.orders"), more)
			topic := h.table.Topic("orders")
			frame := frameOf(produceOf(13, topic.Name, topic.ID, batch(1<<10, 9)), 5)
			head, err := parseHeader(frame)
			if err != nil {
				b.Fatal(err)
			}
			head.flexible = true
			if err := head.rest(frame); err != nil {
				b.Fatal(err)
			}
			req := &produceRequest{table: h.table, member: topic.Member}
			b.ReportAllocs()
			for b.Loop() {
				c := wire.Cursor{B: frame, Pos: head.body}
				c.String(true)
				acks := c.Int16()
				c.Int32()
				req.edits, req.parts = req.edits[:0], req.parts[:0]
				if !h.session.parseProduce(&c, &head, h.table, acks, false, req) {
					b.Fatal("refused")
				}
			}
		})
	}
}
