// Package rawkafka speaks the Kafka protocol one request at a time: the caller
// chooses the version and every field, and sees the answer as it was sent. No
// retry, no routing and no default stands between a test and the wire.
package rawkafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/e2e/internal/drivers"
)

// answerTimeout bounds the wait for one answer; the longest that tests ask for
// are long polls of a second.
const answerTimeout = 30 * time.Second

// A Conn is one connection. It is not for several goroutines.
type Conn struct {
	net.Conn
	clientID    string
	correlation int32
}

// Option changes how a connection is made.
type Option func(*Conn)

// ClientID is sent in every request; without it "raw".
func ClientID(id string) Option { return func(c *Conn) { c.clientID = id } }

// Connect opens a connection to the target's bootstrap address and sends nothing.
func Connect(ctx context.Context, target drivers.Target, options ...Option) (*Conn, error) {
	conn, err := target.Dial(ctx, "tcp", target.Bootstrap)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: conn, clientID: "raw"}
	for _, o := range options {
		o(c)
	}
	return c, nil
}

// Dial is Connect, and logs in by PLAIN when the target has a mechanism.
func Dial(ctx context.Context, target drivers.Target, options ...Option) (*Conn, error) {
	c, err := Connect(ctx, target, options...)
	if err != nil || target.Mechanism == "" {
		return c, err
	}
	if err := c.login(target.User, target.Password); err != nil {
		c.Close()
		return nil, fmt.Errorf("log in as %s: %w", target.User, err)
	}
	return c, nil
}

func (c *Conn) login(user, password string) error {
	shake := kmsg.NewPtrSASLHandshakeRequest()
	shake.Version, shake.Mechanism = 1, "PLAIN"
	resp, err := c.Ask(shake)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.SASLHandshakeResponse).ErrorCode); err != nil {
		return err
	}
	auth := kmsg.NewPtrSASLAuthenticateRequest()
	auth.Version, auth.SASLAuthBytes = 2, []byte("\x00"+user+"\x00"+password)
	if resp, err = c.Ask(auth); err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.(*kmsg.SASLAuthenticateResponse).ErrorCode)
}

// Send writes a request in the version it has and waits for nothing.
func (c *Conn) Send(req kmsg.Request) error {
	c.correlation++
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.clientID)).AppendRequest(nil, req, c.correlation)
	c.SetDeadline(time.Now().Add(answerTimeout))
	_, err := c.Write(frame)
	return err
}

// Receive reads the answer to the request sent last: the frame behind its size
// and correlation id, header tags included.
func (c *Conn) Receive() ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(head[:4]))
	if size < 4 || size > 64<<20 {
		return nil, fmt.Errorf("answer of %d bytes", size)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != c.correlation {
		return nil, fmt.Errorf("answer has correlation id %d, want %d", got, c.correlation)
	}
	frame := make([]byte, size-4)
	_, err := io.ReadFull(c, frame)
	return frame, err
}

// Bytes sends a request and returns the answer as [Conn.Receive] does.
func (c *Conn) Bytes(req kmsg.Request) ([]byte, error) {
	if err := c.Send(req); err != nil {
		return nil, err
	}
	return c.Receive()
}

// Ask sends a request and decodes the answer, every byte of it.
func (c *Conn) Ask(req kmsg.Request) (kmsg.Response, error) {
	frame, err := c.Bytes(req)
	if err != nil {
		return nil, err
	}
	return Decode(req, frame)
}

// Decode reads what [Conn.Bytes] returned.
func Decode(req kmsg.Request, frame []byte) (kmsg.Response, error) {
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.Key() == int16(kmsg.ApiVersions) && len(frame) >= 2 && int16(binary.BigEndian.Uint16(frame)) == kerr.UnsupportedVersion.Code {
		resp.SetVersion(0) // KIP-511: a version nobody knows is answered in the layout of the first
	}
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		if len(frame) == 0 || frame[0] != 0 {
			return nil, fmt.Errorf("answer to %s has tags in its header", kmsg.NameForKey(req.Key()))
		}
		frame = frame[1:]
	}
	if err := resp.ReadFrom(frame); err != nil {
		return nil, fmt.Errorf("answer to %s v%d: %w", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	if again := resp.AppendTo(nil); len(again) != len(frame) {
		return nil, fmt.Errorf("answer to %s v%d has %d bytes, %d when it is encoded again",
			kmsg.NameForKey(req.Key()), req.GetVersion(), len(frame), len(again))
	}
	return resp, nil
}

// Token sends a token as it goes after SaslHandshake v0, without a Kafka header,
// and reads the answer, which for PLAIN is empty.
func (c *Conn) Token(token []byte) error {
	c.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(token))), token...)); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint32(size[:]); n != 0 {
		return fmt.Errorf("answer of %d bytes to a token", n)
	}
	return nil
}
