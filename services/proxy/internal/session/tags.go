package session

import (
	"reflect"
	"sync"
)

// stripUnknownTags clears the tagged fields that the schema does not know, at
// every level: a peer may add tags without a new version (KIP-482), and what
// nobody has read must not pass in either direction (rule 1 of PROTOCOL.md).
func stripUnknownTags(msg any) {
	v := reflect.ValueOf(msg)
	if tags := tagsOf(v.Type()); tags != nil {
		tags.strip(v)
	}
}

// tagged is where a type of message has unknown tags. Asking a type for its fields
// takes longer than all the rest, and answers about many topics have one for each
// of their partitions.
type tagged struct {
	own   []int // fields that are tags
	below []taggedField
	elem  *tagged // of what a pointer or a slice holds
}

type taggedField struct {
	index int
	*tagged
}

var taggedTypes sync.Map // of reflect.Type to *tagged; nil: there are none

func tagsOf(t reflect.Type) *tagged {
	if known, ok := taggedTypes.Load(t); ok {
		return known.(*tagged)
	}
	var found *tagged
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		if elem := tagsOf(t.Elem()); elem != nil {
			found = &tagged{elem: elem}
		}
	case reflect.Struct:
		all := &tagged{}
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Name == "UnknownTags" {
				all.own = append(all.own, i)
			} else if below := tagsOf(f.Type); below != nil {
				all.below = append(all.below, taggedField{i, below})
			}
		}
		if len(all.own)+len(all.below) > 0 {
			found = all
		}
	}
	taggedTypes.Store(t, found)
	return found
}

func (t *tagged) strip(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			t.elem.strip(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			t.elem.strip(v.Index(i))
		}
	case reflect.Struct:
		for _, i := range t.own {
			v.Field(i).SetZero()
		}
		for _, f := range t.below {
			f.strip(v.Field(f.index))
		}
	}
}
