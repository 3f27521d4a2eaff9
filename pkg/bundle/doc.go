// Package bundle makes, signs and opens what the portal hands to the proxies.
//
// A [Bundle] is everything a proxy needs to serve one virtual cluster, or to reach
// one upstream cluster, and nothing else. It says which deployment, kind, name and
// revision it is, so that it is worth the same wherever it was kept: a store that
// lost, mixed up, cut or brought back bundles can be told from one that did not.
// That something was deleted is a bundle too, a tombstone.
//
// What is opened was signed by the portal: [Keyring.Open] refuses everything else,
// with a [Reason], before it reads more of it than its frame. The same objects give
// the same bytes, whoever compiles them.
//
// A bundle says the oldest reader that may read it. Within a format, what a reader
// does not know is passed over; what must not be passed over takes a new format, and
// older readers refuse that by its number. Heads and commands, which are sealed the same
// way, have formats of their own: a new one of bundles leaves them readable.
//
// The package does no I/O, reads no clock and starts no goroutine.
package bundle
