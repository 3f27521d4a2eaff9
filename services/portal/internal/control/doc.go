// Package control is the one place where the resources of the control plane
// change. The API, the forwarding of Kafka's ACL requests and the pages all call
// it, so that none of them has rules of its own.
//
// A change is validated, written, entered into the audit log and its bundles
// marked for publication in one transaction, under one revision; it is there as a
// whole or not at all. What changes nothing takes no revision. Objects that depend
// on what is changed are looked at again: a change that would leave them wrong is
// refused and names them. What others refer to cannot be deleted.
//
// Passwords and tokens are shown once, by the call that makes them. The store
// holds what verifies them; neither the log, nor an error, nor an object that is
// read holds as much as that.
//
// Every refusal is of a type of its own ([NotFound], [Conflict], [Exists],
// [Invalid], [Referenced], [Refused], [Unauthenticated]) and says what to do about
// it. Trouble with the database is store.ErrFull, ErrBusy, ErrUnavailable or
// ErrUnknown.
package control
