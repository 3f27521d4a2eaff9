package acl

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tollgate.internal/pkg/resource"
)

// BindingOf is the binding that a resource of kind Acl stands for.
func BindingOf(r *resource.ACL) (Binding, error) {
	s := &r.Spec
	b := Binding{
		Principal:    s.Principal,
		Host:         CanonicalHost(s.Host),
		ResourceType: resourceTypes[word(s.Resource.Type)],
		ResourceName: s.Resource.Name,
		Pattern:      patterns[word(string(s.Resource.Pattern))],
		Operation:    operations[word(s.Operation)],
		Permission:   permissions[word(s.Permission)],
	}
	if err := b.Valid(); err != nil {
		return Binding{}, r.Metadata.Problem("spec", "%v", err)
	}
	return b, nil
}

// ResourceOf is the resource that stands for a binding, without its name. Its words
// are for validation to spell.
func ResourceOf(b Binding, virtualCluster string) (*resource.ACL, error) {
	if err := b.Valid(); err != nil {
		return nil, err
	}
	return &resource.ACL{
		Metadata: resource.Metadata{VirtualCluster: virtualCluster},
		Spec: resource.ACLSpec{
			Principal: b.Principal,
			Host:      b.Host,
			Resource: resource.ACLResource{
				Type:    wordOf(resourceTypes, b.ResourceType),
				Name:    b.ResourceName,
				Pattern: resource.Pattern(wordOf(patterns, b.Pattern)),
			},
			Operation:  wordOf(operations, b.Operation),
			Permission: wordOf(permissions, b.Permission),
		},
	}, nil
}

func wordOf[V comparable](words map[string]V, value V) string {
	for word, v := range words {
		if v == value && word != "" {
			return word
		}
	}
	return ""
}

// CanonicalHost spells an address as the gateway spells the addresses of its
// clients. Java writes IPv6 in full; both spellings mean the same host here.
func CanonicalHost(host string) string {
	if host == "" {
		return wildcard
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().String()
	}
	return host
}

// Valid reports why a broker would refuse to create b: CreateAcls takes
// concrete values only, and one name for the cluster.
func (b *Binding) Valid() error {
	switch {
	case b.ResourceType < firstType || b.ResourceType > lastType:
		return fmt.Errorf("resource type %d is not concrete", b.ResourceType)
	case b.Pattern != kmsg.ACLResourcePatternTypeLiteral && b.Pattern != kmsg.ACLResourcePatternTypePrefixed:
		return fmt.Errorf("pattern type %d is neither LITERAL nor PREFIXED", b.Pattern)
	case b.ResourceName == "":
		return errors.New("resource name is empty")
	case b.ResourceType == kmsg.ACLResourceTypeCluster && b.ResourceName != ClusterName:
		return fmt.Errorf("the name of the cluster is %s, not %q", ClusterName, b.ResourceName)
	case b.Operation < kmsg.ACLOperationAll || b.Operation > lastOp:
		return fmt.Errorf("operation %d is not concrete", b.Operation)
	case b.Permission != kmsg.ACLPermissionTypeAllow && b.Permission != kmsg.ACLPermissionTypeDeny:
		return fmt.Errorf("permission %d is neither ALLOW nor DENY", b.Permission)
	case !strings.Contains(b.Principal, ":"):
		return fmt.Errorf("principal %q has no type: write User:%s", b.Principal, b.Principal)
	case b.Host == "":
		return errors.New("host is empty: write * for every host")
	}
	return nil
}

// word folds the spellings of Kafka's words: DESCRIBE_CONFIGS in the protocol
// and DescribeConfigs in its tools.
func word(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
}

var (
	resourceTypes = map[string]kmsg.ACLResourceType{
		"topic":           kmsg.ACLResourceTypeTopic,
		"group":           kmsg.ACLResourceTypeGroup,
		"cluster":         kmsg.ACLResourceTypeCluster,
		"transactionalid": kmsg.ACLResourceTypeTransactionalId,
		"delegationtoken": kmsg.ACLResourceTypeDelegationToken,
		"user":            kmsg.ACLResourceTypeUser,
	}
	patterns = map[string]kmsg.ACLResourcePatternType{
		"":         kmsg.ACLResourcePatternTypeLiteral,
		"literal":  kmsg.ACLResourcePatternTypeLiteral,
		"prefixed": kmsg.ACLResourcePatternTypePrefixed,
	}
	operations = map[string]kmsg.ACLOperation{
		"all":             kmsg.ACLOperationAll,
		"read":            kmsg.ACLOperationRead,
		"write":           kmsg.ACLOperationWrite,
		"create":          kmsg.ACLOperationCreate,
		"delete":          kmsg.ACLOperationDelete,
		"alter":           kmsg.ACLOperationAlter,
		"describe":        kmsg.ACLOperationDescribe,
		"clusteraction":   kmsg.ACLOperationClusterAction,
		"describeconfigs": kmsg.ACLOperationDescribeConfigs,
		"alterconfigs":    kmsg.ACLOperationAlterConfigs,
		"idempotentwrite": kmsg.ACLOperationIdempotentWrite,
		"createtokens":    kmsg.ACLOperationCreateTokens,
		"describetokens":  kmsg.ACLOperationDescribeTokens,
		"twophasecommit":  TwoPhaseCommit,
	}
	permissions = map[string]kmsg.ACLPermissionType{
		"allow": kmsg.ACLPermissionTypeAllow,
		"deny":  kmsg.ACLPermissionTypeDeny,
	}
)
