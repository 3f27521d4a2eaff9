package auth

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"tollgate.internal/services/proxy/internal/refusal"
)

// plainExchange is RFC 4616: one message.
type plainExchange struct {
	realm *Realm
	over  bool
	user  string
	id    Identity
}

func (x *plainExchange) Identity() Identity { return x.id }
func (x *plainExchange) Claimed() string    { return x.user }

func (x *plainExchange) Claims(client []byte) string {
	_, user, _, _ := parsePlain(client)
	return user
}

func (x *plainExchange) Step(ctx context.Context, client []byte) ([]byte, bool, error) {
	if x.over {
		return nil, false, refusal.SASLMalformed.Errorf("PLAIN: a message after the last")
	}
	x.over = true
	authzid, user, password, err := parsePlain(client)
	if err != nil {
		return nil, false, refusal.SASLMalformed.Errorf("PLAIN: %w", err)
	}
	x.user = user
	if authzid != "" && authzid != user {
		return nil, false, refusal.AuthorizationID.Errorf("PLAIN: %q asks to act as %q", user, authzid)
	}
	a := x.realm.accounts[user]
	v, err := a.checkPassword(ctx, x.realm.deps, password, x.realm.plainWork)
	switch {
	case err != nil:
		return nil, false, err
	case v != nil:
		x.id = x.realm.local(a, v, "PLAIN")
		return []byte{}, true, nil
	case a == nil:
		return nil, false, refusal.BadCredentials.Errorf("PLAIN: no account %q", user)
	}
	return nil, false, refusal.BadCredentials.Errorf("PLAIN: %q has no live secret that matches", user)
}

var errPlainSyntax = errors.New("want authzid NUL user NUL password in UTF-8")

func parsePlain(b []byte) (authzid, user, password string, err error) {
	if len(b) > maxCredentialBytes || !utf8.Valid(b) {
		return "", "", "", errPlainSyntax
	}
	parts := strings.Split(string(b), "\x00")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return "", "", "", errPlainSyntax
	}
	return parts[0], parts[1], parts[2], nil
}
