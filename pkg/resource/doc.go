// Package resource holds the objects that Tollgate is configured with. [LoadDir]
// reads them from files; [Parse] and [Validate] are for whoever stores them, and
// [Marshal] and [Unmarshal] for what is stored.
//
// Reading is strict: what is unknown, doubled, of the wrong type or contradicts
// another object is refused, and every problem is reported at once with its
// file, line and field. What [LoadDir] returns therefore needs no further
// checks: references lead somewhere, defaults are filled in, Kafka's words have
// one spelling, and paths are absolute.
//
// Two things are left to run time on purpose, so that taking something away
// never makes a directory unreadable: an alias without a covering grant, and an
// ACL or super user of an account that does not exist.
//
// Reading files is the package's only I/O. It starts no goroutine, and asks the
// clock only which verifiers have expired.
package resource
