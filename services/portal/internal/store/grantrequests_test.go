package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGrantRequests(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		s := open(t, url)
		at := func(n int) time.Time { return time.UnixMicro(int64(n)).UTC() }
		write := func(change func(*Tx) error) {
			t.Helper()
			if err := s.Write(t.Context(), change); err != nil {
				t.Fatal(err)
			}
		}
		ids := func(q RequestQuery) string {
			t.Helper()
			var all []string
			if err := s.Read(t.Context(), func(tx *Tx) error {
				rows, err := tx.GrantRequests(t.Context(), q)
				all = nil
				for _, r := range rows {
					all = append(all, r.Tenant+"/"+r.ID)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return strings.Join(all, " ")
		}
		// Two of a moment go by their ids.
		rows := []GrantRequest{
			{Tenant: "b", ID: "z", State: "open", AskedAt: at(1), Document: `{"n":1}`},
			{Tenant: "a", ID: "c", State: "open", AskedAt: at(2), Document: "{}"},
			{Tenant: "a", ID: "d", State: "refused", AskedAt: at(2), DecidedAt: at(9), Document: "{}"},
			{Tenant: "a", ID: "b", State: "open", AskedAt: at(3), Document: "{}"},
		}
		write(func(tx *Tx) error {
			for _, i := range []int{2, 0, 3, 1} {
				if err := tx.PutGrantRequest(t.Context(), rows[i]); err != nil {
					return err
				}
			}
			return nil
		})
		for _, c := range []struct {
			q    RequestQuery
			want string
		}{
			{RequestQuery{}, "b/z a/c a/d a/b"},
			{RequestQuery{Limit: 2}, "b/z a/c"},
			{RequestQuery{AfterAsked: at(2), AfterID: "c"}, "a/d a/b"},
			{RequestQuery{State: "open"}, "b/z a/c a/b"},
			{RequestQuery{State: "open", AfterAsked: at(2), AfterID: "c", Limit: 5}, "a/b"},
			{RequestQuery{Tenant: "a"}, "a/c a/d a/b"},
			{RequestQuery{Tenant: "a", State: "open", AfterAsked: at(2), AfterID: "c"}, "a/b"},
			{RequestQuery{Tenant: "nobody"}, ""},
		} {
			if got := ids(c.q); got != c.want {
				t.Errorf("%+v: %s, want %s", c.q, got, c.want)
			}
		}
		write(func(tx *Tx) error {
			changed := rows[0]
			changed.State, changed.DecidedAt, changed.Document = "approved", at(7), `{"n":2}`
			if err := tx.PutGrantRequest(t.Context(), changed); err != nil {
				return err
			}
			got, ok, err := tx.GrantRequest(t.Context(), "b", "z")
			if err == nil && (!ok || got != changed) {
				err = fmt.Errorf("%+v, want %+v", got, changed)
			}
			return err
		})
		if err := s.Read(t.Context(), func(tx *Tx) error {
			if got, ok, err := tx.GrantRequest(t.Context(), "a", "z"); ok || err != nil {
				t.Errorf("another tenant's: %+v, %v", got, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}

		// What is open stays, and so do those that were decided last.
		write(func(tx *Tx) error {
			for i := range 5 {
				r := GrantRequest{Tenant: "a", ID: fmt.Sprint(i), State: "withdrawn", AskedAt: at(100 - i), DecidedAt: at(200 + i), Document: "{}"}
				if err := tx.PutGrantRequest(t.Context(), r); err != nil {
					return err
				}
			}
			return tx.ForgetGrantRequests(t.Context(), "a", 2)
		})
		left := strings.Fields(ids(RequestQuery{}))
		slices.Sort(left)
		if got := strings.Join(left, " "); got != "a/3 a/4 a/b a/c b/z" {
			t.Errorf("left %s", got)
		}
		write(func(tx *Tx) error { return tx.DeleteGrantRequests(t.Context(), "a") })
		if got := ids(RequestQuery{}); got != "b/z" {
			t.Errorf("left %s", got)
		}
	})
}
