package auth

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// keywords are the attribute types that Java's RFC 2253 form has names for; all
// others, e-mail included, are dotted numbers with a value in hex.
var keywords = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
	"2.5.4.9": "STREET", "0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// relativeNameSET is decoded as a SET because of how it is called.
type relativeNameSET []attribute

var errName = errors.New("distinguished name: malformed")

// distinguishedName renders a certificate's raw subject exactly as Java's
// X500Principal.getName() does, because that is what principal mapping rules
// were written against.
func distinguishedName(raw []byte) (string, error) {
	var names []relativeNameSET
	rest, err := asn1.Unmarshal(raw, &names)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errName, err)
	}
	if len(rest) > 0 {
		return "", errName
	}
	var out strings.Builder
	for i := len(names) - 1; i >= 0; i-- { // the last first
		for j, a := range names[i] {
			switch {
			case j > 0:
				out.WriteByte('+')
			case i < len(names)-1:
				out.WriteByte(',')
			}
			writeAttribute(&out, a)
		}
	}
	return out.String(), nil
}

func writeAttribute(out *strings.Builder, a attribute) {
	oid := a.Type.String()
	keyword, named := keywords[oid]
	if named && isText(a.Value) {
		out.WriteString(keyword)
		out.WriteByte('=')
		out.WriteString(escapeValue(asUTF8(a.Value.Bytes)))
		return
	}
	if named {
		oid = keyword
	}
	out.WriteString(oid)
	out.WriteString("=#")
	out.WriteString(hex.EncodeToString(a.Value.FullBytes))
}

// isText names the string types whose bytes Java prints, whatever they are, as
// UTF-8.
func isText(v asn1.RawValue) bool {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String,
		asn1.TagGeneralString, asn1.TagBMPString:
		return true
	}
	return false
}

// escapeValue escapes as Java does: specials anywhere, blanks and carriage
// returns at both ends, NUL in hex.
func escapeValue(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; c {
		case ',', '=', '+', '<', '>', '#', ';', '"', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case 0:
			b.WriteString(`\00`)
		default:
			b.WriteByte(c)
		}
	}
	s = b.String()
	const blank = " \r"
	inner := strings.TrimLeft(s, blank)
	lead := s[:len(s)-len(inner)]
	inner = strings.TrimRight(inner, blank)
	trail := s[len(lead)+len(inner):]
	b.Reset()
	for i := range len(lead) {
		b.WriteByte('\\')
		b.WriteByte(lead[i])
	}
	b.WriteString(inner)
	for i := range len(trail) {
		b.WriteByte('\\')
		b.WriteByte(trail[i])
	}
	return b.String()
}

// asUTF8 replaces what is not UTF-8 as Java's decoder does: one U+FFFD for the
// longest start of a character that was cut short, else for a single byte.
func asUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			n = malformedLength(b)
		}
		out.WriteRune(r)
		b = b[n:]
	}
	return out.String()
}

// malformedLength is how many bytes of an undecodable start belong together.
func malformedLength(b []byte) int {
	lo, hi, want := byte(0x80), byte(0xbf), 0
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		want = 1
	case c == 0xe0:
		want, lo = 2, 0xa0
	case c == 0xed:
		// A surrogate. Java swallows its second byte, unlike the recommendation.
		want = 2
	case c >= 0xe1 && c <= 0xef:
		want = 2
	case c == 0xf0:
		want, lo = 3, 0x90
	case c == 0xf4:
		want, hi = 3, 0x8f
	case c >= 0xf1 && c <= 0xf3:
		want = 3
	}
	n := 1
	for n <= want && n < len(b) && b[n] >= lo && b[n] <= hi {
		n++
		lo, hi = 0x80, 0xbf
	}
	return n
}
