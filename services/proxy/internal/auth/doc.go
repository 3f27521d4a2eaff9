// Package auth decides who a client of a virtual cluster is.
//
// A [Realm] is everything one virtual cluster accepts: PLAIN, SCRAM,
// OAUTHBEARER, client certificates, or nobody in particular. It is immutable; a
// reload makes a new one and asks [Realm.StillValid] about each live session.
// [Deps] is what the realms of a node share, so that a reload neither derives
// the same password again nor fetches the same signing keys again.
//
// A refusal tells the client one sentence, whatever the reason, and takes the
// same work for a name nobody has as for a wrong secret. The error names the
// reason, for the operator. One that is no [Verdict] says nothing of the client: the
// connection is closed and the client may try again.
//
// The package writes no log, moves no bytes of the client's connection and
// judges no request; it starts no goroutine that outlives a call.
package auth
