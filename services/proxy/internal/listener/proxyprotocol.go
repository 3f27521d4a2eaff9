package listener

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt §2.2):
//
//	12 bytes signature
//	 1 byte  version (2) << 4 | command: 0 LOCAL, 1 PROXY
//	 1 byte  family << 4 | transport
//	 2 bytes length of what follows: addresses, then TLVs
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyFixed     = 16
	// proxyMax bounds what follows. Addresses and the TLVs that balancers send
	// have a few hundred bytes.
	proxyMax = 4 << 10
)

var errProxySignature = errors.New("no PROXY protocol v2 header, which is expected from this source")

// readProxyHeader reads a header from r, and not a byte more. It returns the
// client's address; an invalid one for connections of the balancer itself and
// for address families other than IP. The error is io.EOF when the peer left
// without sending anything.
func readProxyHeader(r io.Reader) (netip.Addr, error) {
	var fixed [proxyFixed]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return netip.Addr{}, io.EOF
		}
		return netip.Addr{}, fmt.Errorf("read PROXY header: %w", err)
	}
	if string(fixed[:12]) != proxySignature {
		return netip.Addr{}, errProxySignature
	}
	if v := fixed[12] >> 4; v != 2 {
		return netip.Addr{}, fmt.Errorf("PROXY protocol version %d is not 2", v)
	}
	length := binary.BigEndian.Uint16(fixed[14:])
	if length > proxyMax {
		return netip.Addr{}, fmt.Errorf("PROXY header of %d bytes, at most %d", length, proxyMax)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // distinct from a peer that sent nothing
		}
		return netip.Addr{}, fmt.Errorf("read PROXY header: %w", err)
	}
	switch command := fixed[12] & 0xf; command {
	case 0:
		return netip.Addr{}, nil
	case 1:
	default:
		return netip.Addr{}, fmt.Errorf("PROXY command %d is unknown", command)
	}
	const unspec, tcp4, tcp6, stream = 0x00, 0x11, 0x21, 0x31
	switch fixed[13] {
	case unspec, stream:
		return netip.Addr{}, nil
	case tcp4:
		if len(body) < 12 {
			return netip.Addr{}, fmt.Errorf("PROXY header: %d bytes are no TCP4 addresses", len(body))
		}
		return netip.AddrFrom4([4]byte(body[:4])), nil
	case tcp6:
		if len(body) < 36 {
			return netip.Addr{}, fmt.Errorf("PROXY header: %d bytes are no TCP6 addresses", len(body))
		}
		return netip.AddrFrom16([16]byte(body[:16])).Unmap(), nil
	}
	return netip.Addr{}, fmt.Errorf("PROXY family and transport %#02x are not TCP", fixed[13])
}
