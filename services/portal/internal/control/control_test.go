package control

import (
	"testing"
)

const childVariable = "TOLLGATE_TEST_CHILD"

func child() int { return 1 }

func TestObjectsAreKept(t *testing.T) {
	each(t, func(t *testing.T, b *bed) {
		results := b.apply(base)
		for i, r := range results {
			if r.Change != Created || r.Revision != 1 || r.Before != nil || r.Object.Meta().Revision != 1 {
				t.Errorf("result %d: %+v", i, r)
			}
		}
		for i, r := range b.apply(base) {
			if r.Change != Unchanged || r.Revision != 1 {
				t.Errorf("applied again, result %d: %+v", i, r)
			}
		}
		if head, err := b.Head(t.Context()); head != 1 || err != nil {
			t.Errorf("Head: %d, %v, want 1: nothing was changed", head, err)
		}
	})
}
