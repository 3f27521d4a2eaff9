package credential

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"tollgate.internal/pkg/resource"
)

// tokens makes a mechanism of client credentials (RFC 6749 §4.4).
func (k *Keeper) tokens(m *material, s *resource.UpstreamSASL, mech *mechanism) {
	secret := m.secret("spec.sasl.clientSecret", s.ClientSecret).Reveal()
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		t.RootCAs = m.pool("spec.sasl.caFile", s.CAFile)
	}
	endpoint := &tokenEndpoint{
		name: withoutQuery(s.TokenURL), secret: secret,
		config: clientcredentials.Config{ClientID: s.ClientID, ClientSecret: secret, TokenURL: s.TokenURL, Scopes: s.Scopes},
		client: &http.Client{
			Transport: k.transport(t), Timeout: renewTimeout,
			// The secret is meant for this endpoint only.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	mech.text = fmt.Sprintf("OAUTHBEARER as %s", s.ClientID)
	token := &renewing[string]{keeper: k, text: mech.text, fetch: endpoint.fetch}
	mech.refused = token.doubt
	mech.Mechanism = bearer(token.doubt, func(ctx context.Context) (oauth.Auth, error) {
		value, err := token.get(ctx)
		return oauth.Auth{Token: value, Extensions: s.Extensions}, err
	})
}

// tokenEndpoint hands out tokens.
type tokenEndpoint struct {
	name   string // its URL, for people
	secret string
	config clientcredentials.Config
	client *http.Client
}

func (e *tokenEndpoint) fetch(ctx context.Context) (l lease[string], err error) {
	token, err := e.config.Token(context.WithValue(ctx, oauth2.HTTPClient, e.client))
	if err != nil {
		return l, e.explain(ctx, err)
	}
	l.value, l.expires = token.AccessToken, token.Expiry
	if strings.ContainsFunc(l.value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return l, fmt.Errorf("token endpoint %s: what it calls a token has characters that no token has", e.name)
	}
	if l.expires.IsZero() {
		l.expires = expiryOf(l.value)
	}
	return l, nil
}

// expiryOf is when a token ends whose endpoint did not say: what it says itself if it is
// a JWT, else soon.
func expiryOf(token string) time.Time {
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if raw, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil && json.Unmarshal(raw, &claims) == nil && claims.Exp > 0 {
			return time.Unix(int64(claims.Exp), 0)
		}
	}
	return time.Now().Add(time.Minute)
}

// explain says what the endpoint said, without the body of its answer: what it echoes
// there nobody knows.
func (e *tokenEndpoint) explain(ctx context.Context, err error) error {
	said := ""
	if answer, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		said = answer.Response.Status
		if answer.Response.StatusCode/100 == 3 {
			said += " (write the URL it leads to)"
		}
		if answer.ErrorCode != "" {
			said += ", " + brief(answer.ErrorCode)
		}
		if answer.ErrorDescription != "" {
			said += ": " + brief(answer.ErrorDescription)
		}
	} else if failed, ok := errors.AsType[*url.Error](err); ok { // it repeats the URL
		said = failed.Err.Error()
	} else if ctx.Err() != nil {
		said = context.Cause(ctx).Error()
	} else {
		said = brief(strings.TrimPrefix(err.Error(), "oauth2: "))
	}
	if e.secret != "" {
		said = strings.ReplaceAll(strings.ReplaceAll(said, e.secret, "[secret]"), url.QueryEscape(e.secret), "[secret]")
	}
	return fmt.Errorf("token endpoint %s: %s", e.name, said)
}

// brief keeps what others say to one line of the log.
func brief(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

func withoutQuery(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "of spec.sasl.tokenURL"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

func hasTLS(text string) bool { return strings.HasPrefix(text, "https:") }

// bearer is OAUTHBEARER with an error that says what the broker said (RFC 7628 §3.2.2).
func bearer(refused func(), auth func(context.Context) (oauth.Auth, error)) sasl.Mechanism {
	return bearerMechanism{oauth.Oauth(auth), refused}
}

type bearerMechanism struct {
	sasl.Mechanism
	refused func()
}

func (b bearerMechanism) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	s, first, err := b.Mechanism.Authenticate(ctx, host)
	if err != nil {
		return nil, nil, err
	}
	return bearerSession{s, b.refused}, first, nil
}

type bearerSession struct {
	sasl.Session
	refused func()
}

func (b bearerSession) Challenge(answer []byte) (bool, []byte, error) {
	if len(answer) == 0 {
		return b.Session.Challenge(answer)
	}
	b.refused()
	var why struct {
		Status string `json:"status"`
		Scope  string `json:"scope"`
	}
	if json.Unmarshal(answer, &why) != nil || why.Status == "" {
		return false, nil, errors.New("the broker refused the token")
	}
	if why.Scope != "" {
		return false, nil, fmt.Errorf("the broker refused the token: %s, it wants the scope %s", brief(why.Status), brief(why.Scope))
	}
	return false, nil, fmt.Errorf("the broker refused the token: %s", brief(why.Status))
}
