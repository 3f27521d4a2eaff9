// Package export passes the audit log on to a topic of Kafka, as CloudEvents.
//
// Every entry of the log arrives at least once. An entry that comes twice has the same
// id, and the first occurrences of the entries about one object are in the order of the
// log: each portal that exports begins where everything before was acknowledged by all
// replicas, and has at most one batch of a partition under way.
//
// Of several portals on one store one exports at a time, by a lease in the store. Nothing
// waits for an export: what the brokers do not take stays in the log, however long.
package export
