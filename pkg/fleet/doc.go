// Package fleet is what the portal and the proxies say to each other through Redis:
// bundles, who changed, how far everything is published, which nodes there are.
//
// Redis is a notice board, and nothing is lost with it. What a proxy acts on was
// signed by the portal (package bundle), so that whoever can write to Redis can hold
// news back, and cannot make any. Host names are hints: the bundle they lead to must
// claim them itself. Records of nodes are not signed; what believes them sends a
// client to the wrong door at worst, and that door has no certificate. Nor are their
// answers, which people look at and nothing acts on.
//
// Every operation has one key, and works the same on a server, behind Sentinels and
// on a cluster. With <d> for the deployment, there are
//
//	tollgate:<d>:vc:<name>        hash {revision, data}: a sealed bundle
//	tollgate:<d>:upstream:<name>  hash {revision, data}: a sealed bundle
//	tollgate:<d>:policies         hash {revision, data}: a sealed bundle, of all virtual clusters' policies
//	tollgate:<d>:host:<host>      hash {revision, data}: the name of a virtual cluster
//	tollgate:<d>:head             hash {revision, data}: the sealed [Head]
//	tollgate:<d>:changes          stream of what is new: see [Entry]
//	tollgate:<d>:node:<id>        hash {owner, record}: a [Node], expires
//	tollgate:<d>:nodes            sorted set of node ids by their last heartbeat
//	tollgate:<d>:answers:<id>     list of [Answer] to a [Command], while somebody waits; expires
//
// A hash is written only when its revision does not fall. The portal writes bundles,
// then hosts, then the stream, then the head: in a copy of Redis from any moment,
// everything up to the head is there.
package fleet
