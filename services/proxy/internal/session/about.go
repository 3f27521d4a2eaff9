package session

import (
	"strconv"
	"strings"
	"time"
)

// What operators and tenants are told of a session. Nobody takes a lock for it: what
// is said once is put up as a whole by the goroutine that reads the client, and what
// grows is counted.

// about is what a client has said of itself so far. It does not change.
type about struct {
	principal, mechanism      string
	clientID                  string
	software, softwareVersion string
}

// nobody is a client that has said nothing.
var nobody about

// maxAbout bounds what a client says of itself.
const maxAbout = 128

// clip makes text of what a client sent.
func clip[T string | []byte](said T) string {
	return strings.ToValidUTF8(string(said[:min(len(said), maxAbout)]), "�")
}

// says takes note of something that the client has said of itself.
func (s *Session) says(change func(*about)) {
	now := *s.about.Load()
	change(&now)
	s.about.Store(&now)
}

// saysClientID takes note of the client id in a header that is not forwarded. Clients
// have one for all their requests, and none begins by producing or fetching.
func (s *Session) saysClientID(id []byte) {
	if len(id) == 0 || s.about.Load().clientID == clip(id) {
		return
	}
	s.says(func(a *about) { a.clientID = clip(id) })
}

// About is a session as it is told of.
type About struct {
	ID                        string
	Principal, Mechanism      string // empty: it has not logged in yet
	ClientID                  string
	Software, SoftwareVersion string
	Address                   string
	Since, LastRequest        time.Time
	Requests                  uint64
	BytesIn, BytesOut         uint64 // on the wire
}

// ID tells the session from all others of the fleet, and nothing else.
func (s *Session) ID() string { return strconv.FormatUint(s.id, 36) }

// About tells of the session.
func (s *Session) About() About {
	a := s.about.Load()
	out := About{
		ID: s.ID(), Principal: a.principal, Mechanism: a.mechanism, ClientID: a.clientID, Software: a.software, SoftwareVersion: a.softwareVersion,
		Address: s.host, Since: s.born, LastRequest: s.born, Requests: s.requests.Load(),
	}
	if at := s.lastSwept.Load(); at != 0 {
		out.LastRequest = time.Unix(0, at)
	}
	out.BytesIn, out.BytesOut = s.client.Sock.Bytes()
	return out
}

// sweepRequests notes when requests came, as far as two sweeps tell.
func (s *Session) sweepRequests(now time.Time) {
	if n := s.requests.Load(); n != s.requestsSwept {
		s.requestsSwept = n
		s.lastSwept.Store(now.UnixNano())
	}
}
