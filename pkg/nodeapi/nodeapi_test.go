package nodeapi

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/secret"
)

func TestWhatIsAskedAndAnswered(t *testing.T) {
	name := "orders"
	binding := acl.Binding{Principal: "User:a", Host: "::1", ResourceType: kmsg.ACLResourceTypeUser, ResourceName: "b", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: acl.TwoPhaseCommit, Permission: kmsg.ACLPermissionTypeDeny}
	filter := acl.Filter{ResourceType: kmsg.ACLResourceTypeAny, ResourceName: &name, Pattern: kmsg.ACLResourcePatternTypeMatch, Operation: kmsg.ACLOperationAny, Permission: kmsg.ACLPermissionTypeAny}
	change := &ACLChange{VirtualCluster: "acme", Principal: "User:admin", Address: "10.0.0.1", Create: []Binding{BindingOf(&binding)}, Delete: []Filter{FilterOf(&filter)}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var got ACLChange
		if err := json.Unmarshal(body, &got); err != nil || !reflect.DeepEqual(&got, change) || r.Method != http.MethodPost || r.URL.Path != ACLChangesPath || r.Header.Get("Authorization") != "Bearer tg_node" {
			t.Errorf("%s %s %v: %s, %v", r.Method, r.URL, r.Header, body, err)
		}
		if c, f := got.Create[0].ACL(), got.Delete[0].ACL(); c != binding || !reflect.DeepEqual(f, filter) {
			t.Errorf("asked for %+v and %+v, want %+v and %+v", c, f, binding, filter)
		}
		_ = json.NewEncoder(w).Encode(ACLChanged{Revision: 3, Create: []Creation{{}}, Delete: []Deletion{{Deleted: got.Create}}})
	}))
	defer server.Close()
	c := &Client{URL: server.URL + "/", Token: secret.New("tg_node"), HTTP: server.Client()}
	done, err := c.ChangeACLs(t.Context(), change)
	if err != nil || done.Revision != 3 || len(done.Delete[0].Deleted) != 1 || done.Delete[0].Deleted[0].ACL() != binding {
		t.Errorf("ChangeACLs = %+v, %v", done, err)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"refused, with a reason", 403, `{"title":"Forbidden","detail":"a token of a node is needed"}`, "403 Forbidden: a token of a node is needed"},
		{"refused, without one", 502, `<html>`, "502 Bad Gateway"},
		{"cut off", 200, `{"revision":`, "read the answer"},
		{"answers to something else", 200, `{"create":[{},{}]}`, "2 and 0 answers to 1 creations and 0 deletions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer server.Close()
			c := &Client{URL: server.URL, Token: secret.New("secret-token"), HTTP: server.Client()}
			_, err := c.ChangeACLs(t.Context(), &ACLChange{VirtualCluster: "acme", Create: make([]Binding, 1)})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret-token") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
