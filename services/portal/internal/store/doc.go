// Package store keeps the control plane's state in SQL: SQLite in a file of its
// own, or PostgreSQL, which several portals may share.
//
// It knows tables and no rules: what may be written is for package control to say.
// What it promises is order. Every change happens in [Store.Write], which gives it
// the next revision; writers wait for each other, in one process or several, so
// revisions have no gaps, commit in their order, and whoever has seen revision n
// has seen everything up to n. A change is there as a whole, flushed to disk, once
// Write returned nil, and not at all when it returned an error that is not
// [ErrUnknown].
//
// Passwords and tokens never come here: only what verifies them does.
package store
