package control

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"tollgate.internal/pkg/resource"
)

// storable reports whether a text is one that databases take: PostgreSQL has none
// with a NUL in it. Of what cannot be stored there is nothing.
func storable(texts ...string) bool {
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
			return false
		}
	}
	return true
}

func storableKey(key resource.Key) bool { return storable(key.Kind, key.Scope, key.Name) }

// shown is a text that somebody sent as it can be stored.
func shown(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// maxExternalName is what an index can hold, and more than tokens and certificates have.
const maxExternalName = 1024

// checkText reports texts that are stored by themselves and cannot be: of all others
// validation sees to that.
func checkText(o *resource.Written) {
	a, ok := o.Object.(*resource.ServiceAccount)
	if !ok {
		return
	}
	for i, name := range a.Spec.ExternalNames {
		field := fmt.Sprintf("spec.externalNames[%d]", i)
		switch {
		case !storable(name):
			o.Problem(field, "must be UTF-8 without NUL")
		case len(name) > maxExternalName:
			o.Problem(field, "is longer than %d bytes", maxExternalName)
		}
	}
}
