package session

import "tollgate.internal/services/proxy/internal/refusal"

// Transactions live on one cluster each (PROTOCOL.md §C3). What does not belong there
// is refused with the code after which every client aborts, and goes on with its next
// transaction: 120 where the version knows it, else what the version before had.

// refuseElsewhere is why a topic cannot be in the transaction of an id.
func (s *Session) refuseElsewhere(id, topic string, abortable bool) error {
	s.vc.Transactions.Refuse(id)
	why := refusal.TransactionElsewhereOld
	if abortable {
		why = refusal.TransactionElsewhere
	}
	return why.Tell("topic '%s' is on another cluster than the transactions of '%s': it cannot be in one of them", topic, id)
}

// refusePartition is the same of a partition that is to be added to it. Sarama takes
// TRANSACTION_ABORTABLE there for the end of the producer, and aborts and goes on
// after UNKNOWN_PRODUCER_ID (seen with 1.61.1).
func (s *Session) refusePartition(id, topic string) error {
	if s.software != "sarama" {
		return s.refuseElsewhere(id, topic, true)
	}
	s.vc.Transactions.Refuse(id)
	return refusal.TransactionElsewhereSarama
}

// refuseOffsets is why offsets cannot be in the transaction of an id.
func (s *Session) refuseOffsets(id string, abortable bool) error {
	s.vc.Transactions.Refuse(id)
	if abortable {
		return refusal.OffsetsElsewhere
	}
	return refusal.OffsetsElsewhereOld
}
