// Package nodeapi is what proxies ask of the portal over HTTP, with the token of a
// node, and how they ask it.
//
// A proxy asks for what its clients have asked it for and may do: the portal takes a
// node's word for who they are. Texts in answers are for those clients; they tell
// nothing of another virtual cluster.
package nodeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/acl"
	"tollgate.internal/pkg/secret"
)

// ACLChangesPath is where an [ACLChange] is POSTed.
const ACLChangesPath = "/v1/internal/acl-changes"

// ACLChange is a CreateAcls or DeleteAcls of a client that may do it.
type ACLChange struct {
	VirtualCluster string    `json:"virtualCluster"`
	Principal      string    `json:"principal"` // User:alice
	Address        string    `json:"address"`   // of the client
	Create         []Binding `json:"create,omitempty"`
	Delete         []Filter  `json:"delete,omitempty"`
}

// ACLChanged says what became of each part of an [ACLChange], in its order. What it
// says is stored for good, and in force on every node that lives, unless Behind.
type ACLChanged struct {
	Revision int64      `json:"revision"`
	Behind   bool       `json:"behind,omitempty"` // some node has not applied it yet
	Create   []Creation `json:"create,omitempty"`
	Delete   []Deletion `json:"delete,omitempty"`
}

// Creation is what became of one binding. One that is there already is created.
type Creation struct {
	Refused string `json:"refused,omitempty"` // why it is not valid
}

// Deletion is what one filter deleted.
type Deletion struct {
	Refused string    `json:"refused,omitempty"`
	Deleted []Binding `json:"deleted,omitempty"`
}

// Binding is an [acl.Binding] with the numbers of Kafka's protocol.
type Binding struct {
	Principal    string `json:"principal"`
	Host         string `json:"host"`
	ResourceType int8   `json:"resourceType"`
	ResourceName string `json:"resourceName"`
	Pattern      int8   `json:"pattern"`
	Operation    int8   `json:"operation"`
	Permission   int8   `json:"permission"`
}

// BindingOf is b as it is sent.
func BindingOf(b *acl.Binding) Binding {
	return Binding{
		Principal: b.Principal, Host: b.Host, ResourceType: int8(b.ResourceType), ResourceName: b.ResourceName,
		Pattern: int8(b.Pattern), Operation: int8(b.Operation), Permission: int8(b.Permission),
	}
}

// ACL is the binding that was sent.
func (b *Binding) ACL() acl.Binding {
	return acl.Binding{
		Principal: b.Principal, Host: b.Host, ResourceType: kmsg.ACLResourceType(b.ResourceType), ResourceName: b.ResourceName,
		Pattern: kmsg.ACLResourcePatternType(b.Pattern), Operation: kmsg.ACLOperation(b.Operation), Permission: kmsg.ACLPermissionType(b.Permission),
	}
}

// Filter is an [acl.Filter] with the numbers of Kafka's protocol.
type Filter struct {
	Principal    *string `json:"principal"`
	Host         *string `json:"host"`
	ResourceType int8    `json:"resourceType"`
	ResourceName *string `json:"resourceName"`
	Pattern      int8    `json:"pattern"`
	Operation    int8    `json:"operation"`
	Permission   int8    `json:"permission"`
}

// FilterOf is f as it is sent.
func FilterOf(f *acl.Filter) Filter {
	return Filter{
		Principal: f.Principal, Host: f.Host, ResourceType: int8(f.ResourceType), ResourceName: f.ResourceName,
		Pattern: int8(f.Pattern), Operation: int8(f.Operation), Permission: int8(f.Permission),
	}
}

// ACL is the filter that was sent.
func (f *Filter) ACL() acl.Filter {
	return acl.Filter{
		Principal: f.Principal, Host: f.Host, ResourceType: kmsg.ACLResourceType(f.ResourceType), ResourceName: f.ResourceName,
		Pattern: kmsg.ACLResourcePatternType(f.Pattern), Operation: kmsg.ACLOperation(f.Operation), Permission: kmsg.ACLPermissionType(f.Permission),
	}
}

// Client asks one portal, or several behind one address.
type Client struct {
	URL   string // http://HOST:PORT
	Token secret.Secret
	HTTP  *http.Client
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 20

// ChangeACLs has the portal change ACLs. After an error the change may have been made
// or not; made twice it is the same.
func (c *Client) ChangeACLs(ctx context.Context, change *ACLChange) (*ACLChanged, error) {
	answer := new(ACLChanged)
	if err := c.post(ctx, ACLChangesPath, change, answer); err != nil {
		return nil, fmt.Errorf("change ACLs of %s at the portal: %w", change.VirtualCluster, err)
	}
	if len(answer.Create) != len(change.Create) || len(answer.Delete) != len(change.Delete) {
		return nil, fmt.Errorf("change ACLs of %s at the portal: %d and %d answers to %d creations and %d deletions",
			change.VirtualCluster, len(answer.Create), len(answer.Delete), len(change.Create), len(change.Delete))
	}
	return answer, nil
}

func (c *Client) post(ctx context.Context, path string, ask, answer any) error {
	body, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.Token.Reveal())
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var problem struct {
			Detail string `json:"detail"`
		}
		_ = json.Unmarshal(data, &problem) // without one the status speaks for itself
		return errors.New(strings.TrimSuffix(resp.Status+": "+problem.Detail, ": "))
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
