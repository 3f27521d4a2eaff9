package api

import (
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"tollgate.internal/pkg/resource"
)

// words are the fields with a closed set of values, by the schema they belong to.
var words = map[string]map[string][]string{
	"TenantSpec":         {"state": {string(resource.TenantActive), string(resource.TenantSuspended), string(resource.TenantClosing)}},
	"UpstreamSASL":       {"mechanism": {resource.SASLPlain, resource.SASLSCRAM256, resource.SASLSCRAM512, resource.SASLOAuthBearer, resource.SASLGSSAPI, resource.SASLMSKIAM}},
	"VirtualClusterSpec": {"type": {string(resource.Standard), string(resource.Partner)}},
	"TopicGrantSpec":     {"access": {string(resource.ReadOnly), string(resource.ReadWrite)}},
	"TopicSelector":      {"pattern": {string(resource.Literal), string(resource.Prefixed)}},
	"ServiceAccountSpec": {"type": {string(resource.Local), string(resource.External)}},
	"Verifier":           {"mechanism": {resource.SASLSCRAM256, resource.SASLSCRAM512, "argon2id"}},
	"ACLSpec":            {"operation": aclOperations(), "permission": {"ALLOW", "DENY"}},
	"PolicySpec":         {"type": {string(resource.PolicyProduce)}},
	"PolicyConfig":       {"acks": {string(resource.AcksAll), string(resource.AcksLeader)}},
	"PriceBookSpec":      {"currency": resource.Currencies()},
	"Price": {
		"unit":      {string(resource.UnitGiB), string(resource.UnitMillionRecords), string(resource.UnitMillionRequests), string(resource.UnitPartitionHour)},
		"direction": {string(resource.Produced), string(resource.Fetched)},
	},
	"BudgetSpec":  {"owner": {string(resource.OwnerOperator), string(resource.OwnerTenant)}, "period": {string(resource.Day), string(resource.Month), string(resource.Quarter), string(resource.Year)}, "currency": resource.Currencies()},
	"ACLResource": {"type": resource.ACLResourceTypes(), "pattern": {string(resource.Literal), string(resource.Prefixed)}},
}

func aclOperations() (all []string) {
	for _, kind := range resource.ACLResourceTypes() {
		for _, operation := range resource.ACLOperations(kind) {
			if !slices.Contains(all, operation) {
				all = append(all, operation)
			}
		}
	}
	return all
}

// hidden are the fields that tell of the brokers behind a virtual cluster. A token
// of a tenant reads objects without them; where they are required, writing needs them.
var hidden = map[string][]string{
	resource.KindVirtualCluster: {"home", "clusters", "slots", "stubs", "transactions"},
	resource.KindTopicGrant:     {"cluster", "topic"},
	resource.KindAliasTopic:     {"cluster", "topic", "identity"},
}

// issued are fields that only files have: secrets come and go by calls of their own.
var issued = []string{"password", "verifiers"}

// schemas are those of objects: by kind what is read, and what is written.
type schemas struct {
	registry huma.Registry
	read     map[string]*huma.Schema
	write    map[string]*huma.Schema
}

const schemaPrefix = "#/components/schemas/"

// schemaName is what a type is called in the document.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	return strings.ToUpper(name[:1]) + name[1:]
}

// newSchemas derives the schemas of all kinds from the types that hold them.
func newSchemas(registry huma.Registry, statusOf func(kind string) reflect.Type) *schemas {
	s := &schemas{registry, make(map[string]*huma.Schema), make(map[string]*huma.Schema)}
	for _, kind := range resource.Kinds {
		spec := registry.Schema(reflect.TypeOf(kind.New()).Elem().Field(1).Type, true, "")
		component := registry.SchemaFromRef(spec.Ref)
		if kind.Name == resource.KindServiceAccount {
			for _, field := range issued {
				delete(component.Properties, field)
			}
		}
		// What only some may read is required when it is written.
		var required []string
		component.Required = slices.DeleteFunc(component.Required, func(field string) bool {
			if slices.Contains(hidden[kind.Name], field) {
				required = append(required, field)
				return true
			}
			return false
		})
		text := func(value string) *huma.Schema { return &huma.Schema{Type: huma.TypeString, Enum: []any{value}} }
		registry.Map()[kind.Name] = &huma.Schema{
			Type:                 huma.TypeObject,
			AdditionalProperties: false,
			Properties: map[string]*huma.Schema{
				"apiVersion": text(resource.APIVersion),
				"kind":       text(kind.Name),
				"metadata":   metadataSchema(kind),
				"spec":       spec,
				"status":     readOnly(registry.Schema(statusOf(kind.Name), true, "")),
			},
			Required: []string{"apiVersion", "kind", "metadata", "spec"},
		}
		s.read[kind.Name] = &huma.Schema{Ref: schemaPrefix + kind.Name}
		s.write[kind.Name] = s.read[kind.Name]
		if required != nil {
			s.write[kind.Name] = &huma.Schema{AllOf: []*huma.Schema{s.read[kind.Name], {
				Type: huma.TypeObject,
				Properties: map[string]*huma.Schema{
					"spec": {Type: huma.TypeObject, Required: required},
				},
			}}}
		}
	}
	return s
}

func readOnly(s *huma.Schema) *huma.Schema {
	return &huma.Schema{AllOf: []*huma.Schema{s}, ReadOnly: true, Description: "What the portal says of the object. It may be sent back, and is passed over."}
}

// labelPattern is what labels and their values are made of, as package resource says it.
const labelPattern = `[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?`

func metadataSchema(kind resource.Kind) *huma.Schema {
	name := &huma.Schema{Type: huma.TypeString, Pattern: "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", Description: "A DNS label."}
	if kind.Name == resource.KindAliasTopic {
		name = &huma.Schema{Type: huma.TypeString, Pattern: "^[A-Za-z0-9._-]{1,249}$", Description: "The name of a topic, as clients see it."}
	}
	s := &huma.Schema{
		Type:                 huma.TypeObject,
		AdditionalProperties: false,
		Properties: map[string]*huma.Schema{
			"name": name,
			"labels": {
				Type: huma.TypeObject, AdditionalProperties: &huma.Schema{Type: huma.TypeString, Pattern: `^(` + labelPattern + `)?$`},
				Extensions: map[string]any{"propertyNames": map[string]string{"pattern": "^" + labelPattern + "$"}},
			},
			"revision": {Type: huma.TypeInteger, Format: "int64", ReadOnly: true, Description: "Of the last change. It may be sent back, and must then still be the object's, as with If-Match. To a token of a tenant revisions are equal or not: which of two is newer, they do not say."},
		},
		Required: []string{"name"},
	}
	owner := func(field, kind string) {
		s.Properties[field] = &huma.Schema{Type: huma.TypeString, Description: "The " + kind + " it belongs to."}
		s.Required = append(s.Required, field)
	}
	switch {
	case kind.Everywhere():
		s.Properties["virtualCluster"] = &huma.Schema{Type: huma.TypeString, Description: "The VirtualCluster it belongs to. Left out: it is one of all virtual clusters, which those who run the gateway make."}
	case kind.Scope == resource.KindVirtualCluster:
		owner("virtualCluster", kind.Scope)
	case kind.Scope == resource.KindTenant, kind.Name == resource.KindVirtualCluster:
		owner("tenant", resource.KindTenant)
	}
	return s
}

// finish mends, in every schema there is, what cannot be said by types.
func (s *schemas) finish() {
	for name, component := range s.registry.Map() {
		for field, values := range words[name] {
			for _, value := range values {
				component.Properties[field].Enum = append(component.Properties[field].Enum, value)
			}
		}
		for field, property := range component.Properties {
			property.Nullable = false // null is nothing here: what is empty is left out
			if ref := s.registry.SchemaFromRef(property.Ref); ref != nil && strings.HasSuffix(property.Ref, "Struct") {
				// An anonymous type has no fields: it says that something is so.
				component.Properties[field] = &huma.Schema{Type: huma.TypeObject, AdditionalProperties: false, Description: "An empty object."}
			}
		}
	}
	for name, component := range s.registry.Map() {
		if name == "ErrorModel" || name == "ErrorDetail" { // huma's own problems, which are answered as ours
			delete(s.registry.Map(), name)
		}
		if strings.HasSuffix(name, "Struct") && len(component.Properties) == 0 {
			delete(s.registry.Map(), name)
		}
	}
	for name, field := range map[string]string{"Price": "price", "BudgetSpec": "amount"} {
		s.registry.Map()[name].Properties[field].Pattern = `^(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$`
	}
	if stubs := s.registry.Map()["StubSettings"]; stubs != nil {
		stubs.Properties["keepFor"].Description = "A duration with its unit, such as 168h."
	}
}

// everyKind is any object.
func (s *schemas) everyKind(of map[string]*huma.Schema) *huma.Schema {
	any := new(huma.Schema)
	for _, kind := range resource.Kinds {
		any.OneOf = append(any.OneOf, of[kind.Name])
	}
	return any
}
