package listener

// Host is the bootstrap host of the family of names that the client came in by; empty
// with port routing.
func (c *Conn) Host() string { return c.host }

// Port is the port that SNI clients of the socket are told.
func (c *Conn) Port() int32 { return int32(c.port) }
