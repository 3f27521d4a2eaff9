package session

import "reflect"

// stripUnknownTags clears the tagged fields that the schema does not know, at
// every level: a peer may add tags without a new version (KIP-482), and what
// nobody has read must not pass in either direction (rule 1 of PROTOCOL.md).
func stripUnknownTags(msg any) { strip(reflect.ValueOf(msg)) }

func strip(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			strip(v.Elem())
		}
	case reflect.Slice:
		switch v.Type().Elem().Kind() {
		case reflect.Struct, reflect.Pointer:
			for i := range v.Len() {
				strip(v.Index(i))
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Field(i)
			if v.Type().Field(i).Name == "UnknownTags" {
				f.SetZero()
				continue
			}
			strip(f)
		}
	}
}
