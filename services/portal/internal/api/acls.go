package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/nodeapi"
	"tollgate.internal/services/portal/internal/control"
)

// aclPatience is how long a Kafka client that changes ACLs waits for all nodes. It
// asks again after 30 s, and what it asked for is done.
const aclPatience = 10 * time.Second

// aclRoute is where proxies send what clients ask of Kafka's ACL API.
func (a *API) aclRoute() {
	reg := a.schemas.registry
	register(a, route{
		method: http.MethodPost, path: nodeapi.ACLChangesPath, id: "changeACLs", tag: "proxies", summary: "Change ACLs as a Kafka client asked for it", roles: forNode, write: true,
		description: "For the CreateAcls and DeleteAcls of a client that may do it, with the numbers of Kafka's protocol. It answers once every live node serves the change, or with behind after 10 s.",
		body:        reg.Schema(reflect.TypeFor[nodeapi.ACLChange](), true, ""),
		answers:     map[int]documented{200: {"What became of each binding and each filter, in their order.", reg.Schema(reflect.TypeFor[nodeapi.ACLChanged](), true, ""), nil, nil}},
	}, func(ctx context.Context, c *call, _ *noParameters) (*reply, error) {
		var ask nodeapi.ACLChange
		if p := c.body.decodeAny(&ask); p != nil {
			return nil, p
		}
		actor := control.Actor{Name: ask.Principal, Kind: "kafka", Address: ask.Address, Request: c.caller.actor.Request}
		change := control.ACLChange{VirtualCluster: ask.VirtualCluster}
		if clean(ask.VirtualCluster) != ask.VirtualCluster || clean(ask.Principal+ask.Address) != ask.Principal+ask.Address {
			return nil, notFound()
		}
		out := nodeapi.ACLChanged{Create: make([]nodeapi.Creation, len(ask.Create)), Delete: make([]nodeapi.Deletion, len(ask.Delete))}
		var asked []int // which binding each of the change is
		for i := range ask.Create {
			b := ask.Create[i].ACL()
			if why := kept(&b); why != nil {
				out.Create[i].Refused = why.Error()
				continue
			}
			change.Create, asked = append(change.Create, b), append(asked, i)
		}
		for i := range ask.Delete {
			change.Delete = append(change.Delete, ask.Delete[i].ACL())
		}
		result, err := a.control.ApplyACLs(ctx, actor, change, control.Options{})
		if err != nil {
			return nil, err
		}
		for i, why := range result.Created {
			out.Create[asked[i]].Refused = refusal(why)
		}
		for i, bindings := range result.Deleted {
			for _, b := range bindings {
				out.Delete[i].Deleted = append(out.Delete[i].Deleted, nodeapi.BindingOf(&b))
			}
		}
		out.Revision = result.Revision
		out.Behind = !a.applied(ctx, c, result.Revision, aclPatience)
		return &reply{body: out}, nil
	})
}

// kept is why a binding cannot be kept, whatever else it says.
func kept(b *acl.Binding) error {
	for _, text := range []string{b.Principal, b.Host, b.ResourceName} {
		if clean(text) != text {
			return errors.New("a name in it has a character with the number 0")
		}
	}
	return b.Valid()
}

// clean is text as every database keeps it.
func clean(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
}

// refusal is why a binding is not valid, in words for a Kafka client.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	e, ok := errors.AsType[*control.Invalid](err)
	if !ok {
		return err.Error()
	}
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = strings.TrimPrefix(p.Field, "spec.") + ": " + p.Message
	}
	return strings.Join(texts, "; ")
}
