package resource

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// saslFields are the fields of each mechanism, those first that it cannot do without.
var saslFields = []struct {
	mechanism string
	required  []string
	optional  []string
}{
	{SASLPlain, []string{"username", "password"}, nil},
	{SASLSCRAM256, []string{"username", "password"}, nil},
	{SASLSCRAM512, []string{"username", "password"}, nil},
	{SASLOAuthBearer, []string{"tokenURL", "clientID", "clientSecret"}, []string{"scopes", "extensions", "caFile"}},
	{SASLGSSAPI, []string{"keytab", "principal"}, []string{"krb5Conf", "serviceName"}},
	{
		SASLMSKIAM,
		[]string{"region"},
		[]string{"accessKeyID", "secretAccessKey", "sessionToken", "profile", "roleArn", "externalId", "stsEndpoint"},
	},
}

// references are the fields that hold secrets.
func (s *UpstreamSASL) references() map[string]*Reference {
	return map[string]*Reference{
		"password": &s.Password, "clientSecret": &s.ClientSecret, "keytab": &s.Keytab,
		"accessKeyID": &s.AccessKeyID, "secretAccessKey": &s.SecretAccessKey, "sessionToken": &s.SessionToken,
	}
}

func (s *UpstreamSASL) texts() map[string]string {
	return map[string]string{
		"username": s.Username, "tokenURL": s.TokenURL, "clientID": s.ClientID, "caFile": s.CAFile,
		"principal": s.Principal, "krb5Conf": s.Krb5Conf, "serviceName": s.ServiceName,
		"region": s.Region, "profile": s.Profile, "roleArn": s.RoleARN, "externalId": s.ExternalID, "stsEndpoint": s.STSEndpoint,
	}
}

func validateUpstreamSASL(o *Written, spec *UpstreamClusterSpec) {
	const at = "spec.sasl"
	s := spec.SASL
	// A secret in the place of a reference is reported whatever else is wrong.
	references := s.references()
	for field, r := range references {
		if o.Written(at + "." + field) {
			o.secret(at+"."+field, r)
		}
	}
	var names []string
	for _, m := range saslFields {
		names = append(names, m.mechanism)
	}
	i := slices.Index(names, s.Mechanism)
	if i < 0 {
		if s.Mechanism == "" {
			o.Problem(at+".mechanism", "required: one of %s", strings.Join(names, ", "))
		} else {
			o.Problem(at+".mechanism", "unknown mechanism %q: one of %s", s.Mechanism, strings.Join(names, ", "))
		}
		return
	}
	mine := saslFields[i]
	texts := s.texts()
	for _, field := range mine.required {
		switch r := references[field]; {
		case r != nil && *r == "" && !o.Written(at+"."+field):
			o.Problem(at+"."+field, "required for %s: write env:NAME or file:PATH", s.Mechanism)
		case r == nil && texts[field] == "":
			o.Problem(at+"."+field, "required for %s", s.Mechanism)
		}
	}
	fields := slices.Concat(mine.required, mine.optional)
	for _, m := range saslFields {
		for _, field := range slices.Concat(m.required, m.optional) {
			if o.Written(at+"."+field) && !slices.Contains(fields, field) {
				o.Problem(at+"."+field, "has no meaning for %s: its fields are %s", s.Mechanism, strings.Join(fields, ", "))
				fields = append(fields, field) // once
			}
		}
	}
	for _, field := range mine.optional {
		if text, ok := texts[field]; ok && text == "" && o.Written(at+"."+field) {
			o.Problem(at+"."+field, "must not be empty: leave it out instead")
		}
	}
	switch s.Mechanism {
	case SASLOAuthBearer:
		validateTokens(o, at, s)
	case SASLGSSAPI:
		validateKerberos(o, at, s)
	case SASLMSKIAM:
		validateIAM(o, at, spec)
	}
}

// scopeToken is RFC 6749 §3.3, extensionName and extensionValue are RFC 7628 §3.1.
var (
	scopeToken     = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)
	extensionName  = regexp.MustCompile(`^[A-Za-z]+$`)
	extensionValue = regexp.MustCompile(`^[\x21-\x7E \t\r\n]+$`)
)

func validateTokens(o *Written, at string, s *UpstreamSASL) {
	o.path(at+".caFile", &s.CAFile)
	if s.TokenURL != "" {
		endpoint(o, at+".tokenURL", s.TokenURL)
	}
	if s.CAFile != "" && !strings.HasPrefix(s.TokenURL, "https:") {
		o.Problem(at+".caFile", "has no meaning for a token endpoint without https")
	}
	for i, scope := range s.Scopes {
		if !scopeToken.MatchString(scope) {
			o.Problem(index(at+".scopes", i), "%q is not one scope: a word without blanks and quotes", scope)
		}
	}
	for name, value := range s.Extensions {
		switch field := at + ".extensions." + name; {
		case !extensionName.MatchString(name):
			o.Problem(field, "the name of an extension has letters only")
		case name == "auth":
			o.Problem(field, "auth is where the token itself is sent")
		case !extensionValue.MatchString(value):
			o.Problem(field, "must be printable ASCII, and not empty")
		}
	}
}

// principalName is a Kerberos principal in its plain form: name, instance, realm.
var (
	principalName = regexp.MustCompile(`^[^/@\s]+(/[^/@\s]+)*(@[^/@\s]+)?$`)
	serviceName   = regexp.MustCompile(`^[^/@\s]+$`)
)

func validateKerberos(o *Written, at string, s *UpstreamSASL) {
	if strings.HasPrefix(string(s.Keytab), "env:") {
		o.Problem(at+".keytab", "a keytab is not text that a variable could hold: write file:PATH")
	}
	if s.Principal != "" && !principalName.MatchString(s.Principal) {
		o.Problem(at+".principal", "%q is not a principal: write NAME@REALM or NAME/INSTANCE@REALM", s.Principal)
	}
	if s.Krb5Conf == "" {
		s.Krb5Conf = "/etc/krb5.conf"
	}
	o.path(at+".krb5Conf", &s.Krb5Conf)
	if s.ServiceName == "" {
		s.ServiceName = "kafka"
	}
	if !serviceName.MatchString(s.ServiceName) {
		o.Problem(at+".serviceName", "%q is not the first part of the brokers' principals, as kafka is of kafka/HOST@REALM", s.ServiceName)
	}
}

var (
	awsRegion = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
	roleARN   = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	// externalID is what sts:AssumeRole accepts.
	externalID = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
)

func validateIAM(o *Written, at string, spec *UpstreamClusterSpec) {
	s := spec.SASL
	if spec.TLS == nil {
		o.Problem("spec.tls", "required for %s, which Amazon MSK offers over TLS only: write tls: {}", s.Mechanism)
	}
	if s.Region != "" && !awsRegion.MatchString(s.Region) {
		o.Problem(at+".region", "%q is not an AWS region, as eu-west-1 is one", s.Region)
	}
	keys := o.Written(at+".accessKeyID") || o.Written(at+".secretAccessKey")
	switch {
	case keys && !o.Written(at+".accessKeyID"):
		o.Problem(at+".accessKeyID", "required beside secretAccessKey")
	case keys && !o.Written(at+".secretAccessKey"):
		o.Problem(at+".secretAccessKey", "required beside accessKeyID")
	case !keys && o.Written(at+".sessionToken"):
		o.Problem(at+".sessionToken", "has no meaning without accessKeyID and secretAccessKey")
	}
	if keys && s.Profile != "" {
		o.Problem(at+".profile", "has no meaning beside accessKeyID: the keys come from one of the two")
	}
	if s.RoleARN != "" && !roleARN.MatchString(s.RoleARN) {
		o.Problem(at+".roleArn", "%q is not the ARN of a role, as arn:aws:iam::111122223333:role/NAME is one", s.RoleARN)
	}
	if s.RoleARN == "" {
		for field, text := range map[string]string{"externalId": s.ExternalID, "stsEndpoint": s.STSEndpoint} {
			if text != "" {
				o.Problem(at+"."+field, "has no meaning without roleArn")
			}
		}
	}
	if n := len(s.ExternalID); n > 0 && (n < 2 || n > 1224 || !externalID.MatchString(s.ExternalID)) {
		o.Problem(at+".externalId", "is not an external id: 2 to 1224 letters, digits and any of _+=,.@:/-")
	}
	if s.STSEndpoint != "" {
		endpoint(o, at+".stsEndpoint", s.STSEndpoint)
	}
}

// endpoint checks a URL that secrets are sent to.
func endpoint(o *Written, field, text string) {
	u, err := url.Parse(text)
	switch {
	case !httpURL(text):
		o.Problem(field, "is not an http or https URL")
	case err == nil && u.User != nil:
		o.Problem(field, "must not hold a user or a password: they have fields of their own")
	case err == nil && u.Fragment != "":
		o.Problem(field, "must not have a #fragment")
	}
}
