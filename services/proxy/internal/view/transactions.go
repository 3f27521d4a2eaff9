package view

import "sync"

// Transactions remembers in which transactions of a virtual cluster something was
// refused that the coordinator never heard of. It answers the abort of a transaction
// it does not know with INVALID_TXN_STATE, which kills librdkafka and franz-go
// producers (PROTOCOL.md §C3). A producer may abort on another connection than the
// one it was refused on.
type Transactions struct {
	mu      sync.Mutex
	refused map[string]struct{}
}

// maxTransactions is how many are remembered.
const maxTransactions = 10_000

// Refuse remembers that something of a transaction was refused.
func (x *Transactions) Refuse(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.refused == nil || len(x.refused) >= maxTransactions {
		x.refused = make(map[string]struct{}) // who makes up so many gets a broker's answers
	}
	x.refused[id] = struct{}{}
}

// End forgets a transaction: it has ended.
func (x *Transactions) End(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.refused, id)
}

// Refused reports whether something of the transaction was refused.
func (x *Transactions) Refused(id string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, ok := x.refused[id]
	return ok
}
