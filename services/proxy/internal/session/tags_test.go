package session

import (
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// No message of any kind keeps a tag that the schema does not know, at any level.
func TestUnknownTagsAreStrippedAtEveryLevel(t *testing.T) {
	total := 0
	for key := range int16(kmsg.MaxKey + 1) {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		for _, msg := range []any{req, req.ResponseKind()} {
			added := 0
			everyStruct(reflect.ValueOf(msg), func(tags *kmsg.Tags) {
				tags.Set(4711, []byte("secret"))
				added++
			})
			stripUnknownTags(msg)
			everyStruct(reflect.ValueOf(msg), func(tags *kmsg.Tags) {
				if tags.Len() > 0 {
					t.Errorf("%T keeps tags", msg)
				}
			})
			total += added
		}
	}
	if total < 500 {
		t.Errorf("%d places for tags were tried", total)
	}
}

// everyStruct fills a message, with one element in each list, and visits the tags of
// everything in it.
func everyStruct(v reflect.Value, visit func(*kmsg.Tags)) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() != reflect.Struct {
			return
		}
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		everyStruct(v.Elem(), visit)
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		everyStruct(v.Index(0), visit)
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			visit(tags)
			return
		}
		for i := range v.NumField() {
			everyStruct(v.Field(i), visit)
		}
	}
}
