// Package api is the HTTP API of the control plane: the kinds of resources under one
// set of rules, and around them secrets, tokens, the fleet and the log of changes.
//
// It knows requests and no rules: what may be changed is for package control to say.
// What it promises is about who sees what. A token of a tenant sees what belongs to
// that tenant; anything else is not there, and is answered with the same bytes as
// what never was: whether by its name, in a list, by a filter, in a dry run or in the
// text of a problem. What tells of the brokers behind a virtual cluster is left out
// of what such a token reads. Refused with 403 is only what the caller may read.
//
// Every error is a problem of RFC 9457, and every mistake in what was sent is in it
// with the path of its field. What went wrong inside is in the log, under the id that
// the answer has. The document and its page are made of the types that hold the
// objects.
package api
