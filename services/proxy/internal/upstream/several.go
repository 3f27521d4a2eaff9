package upstream

import "time"

// What virtual clusters need that have several clusters.

// Stale reports whether Fresh would ask the cluster and wait for it.
func (c *Cluster) Stale(age time.Duration) bool {
	s := c.current.Load()
	return (s == nil || time.Since(s.at) > age || c.stale.Load()) && !c.State().Suspect
}

// Intersect is what both can do.
func (v *Versions) Intersect(o *Versions) *Versions { return v.intersect(o) }

// Leaderless is a partition of which nothing is known but that it exists.
var Leaderless = Partition{ErrorCode: 5, Leader: -1, LeaderEpoch: -1}
