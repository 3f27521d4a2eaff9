package listener

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"

	"tollgate.internal/services/proxy/internal/refusal"
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

	addressesTCP4 = 2*4 + 2*2
	addressesTCP6 = 2*16 + 2*2

	tlvCRC32C = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// proxyRead keeps a timeout what it is; everything else is a bad header.
func proxyRead(err error) error {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return err
	}
	return refusal.ProxyHeaderInvalid.With(err)
}

// readProxyHeader reads a header from r, and not a byte more. It returns the
// client's address; an invalid one for connections of the balancer itself and
// for address families other than IP.
func readProxyHeader(r io.Reader) (netip.Addr, error) {
	var fixed [proxyFixed]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		if err == io.EOF {
			return netip.Addr{}, refusal.ClientGone
		}
		return netip.Addr{}, proxyRead(err)
	}
	if string(fixed[:12]) != proxySignature {
		return netip.Addr{}, refusal.ProxyHeaderInvalid.Errorf("it begins with %x", fixed[:12])
	}
	if v := fixed[12] >> 4; v != 2 {
		return netip.Addr{}, refusal.ProxyHeaderInvalid.Errorf("protocol version %d is not 2", v)
	}
	length := binary.BigEndian.Uint16(fixed[14:])
	if length > proxyMax {
		return netip.Addr{}, refusal.ProxyHeaderInvalid.Errorf("header of %d bytes, at most %d", length, proxyMax)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.Addr{}, proxyRead(err)
	}
	switch command := fixed[12] & 0xf; command {
	case 0:
		return netip.Addr{}, nil
	case 1:
	default:
		return netip.Addr{}, refusal.ProxyHeaderInvalid.Errorf("command %d is unknown", command)
	}
	const unspec, tcp4, tcp6, stream = 0x00, 0x11, 0x21, 0x31
	switch fixed[13] {
	case unspec, stream:
		return netip.Addr{}, nil
	case tcp4:
		if len(body) < addressesTCP4 {
			return netip.Addr{}, refusal.ProxyHeaderInvalid.Errorf("%d bytes are no TCP4 addresses", len(body))
		}
		if err := checkProxyCRC(fixed[:], body, addressesTCP4); err != nil {
			return netip.Addr{}, err
		}
		return netip.AddrFrom4([4]byte(body[:4])), nil
	case tcp6:
		if len(body) < addressesTCP6 {
			return netip.Addr{}, refusal.ProxyHeaderInvalid.Errorf("%d bytes are no TCP6 addresses", len(body))
		}
		if err := checkProxyCRC(fixed[:], body, addressesTCP6); err != nil {
			return netip.Addr{}, err
		}
		return netip.AddrFrom16([16]byte(body[:16])).Unmap(), nil
	}
	return netip.Addr{}, refusal.ProxyHeaderInvalid.Errorf("family and transport %#02x are not TCP", fixed[13])
}

// checkProxyCRC walks the TLVs behind the addresses and verifies the checksum, if
// there is one: that of the whole header with the checksum itself as zeros.
func checkProxyCRC(fixed, body []byte, addresses int) error {
	for at := addresses; at < len(body); {
		rest := body[at:]
		if len(rest) < 3 || len(rest) < 3+int(binary.BigEndian.Uint16(rest[1:])) {
			return refusal.ProxyHeaderInvalid.Errorf("a TLV is cut off")
		}
		value := rest[3 : 3+int(binary.BigEndian.Uint16(rest[1:]))]
		at += 3 + len(value)
		if rest[0] != tlvCRC32C {
			continue
		}
		if len(value) != 4 {
			return refusal.ProxyHeaderInvalid.Errorf("a checksum of %d bytes", len(value))
		}
		want := binary.BigEndian.Uint32(value)
		clear(value)
		got := crc32.Update(crc32.Checksum(fixed, castagnoli), castagnoli, body)
		if got != want {
			return refusal.ProxyHeaderInvalid.Errorf("the checksum does not match")
		}
		return nil
	}
	return nil
}
