package credential

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-msk-iam-sasl-signer-go/signer"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/twmb/franz-go/pkg/sasl/oauth"

	"tollgate.internal/pkg/resource"
)

// sessionName is what CloudTrail shows of a role that the gateway assumed.
const sessionName = "tollgate"

// rereadKeys is when keys without an end are looked for again where the SDK looks by
// default: files there are replaced too.
const rereadKeys = 15 * time.Minute

// iamIdentity is who signs, and where. Clusters that agree in it share one set of keys.
type iamIdentity struct {
	region, profile, role, externalID, sts string
	keys                                   [sha256.Size]byte // of the static ones; zero: none
}

// sharedIAM are the keys of an identity, and how many credentials use them.
type sharedIAM struct {
	*renewing[aws.Credentials]
	users int // guarded by Keeper.mu
}

// msk makes a mechanism for Amazon MSK: a request to kafka-cluster:Connect, signed and
// not sent, is the token. MSK takes it through OAUTHBEARER.
func (k *Keeper) msk(m *material, s *resource.UpstreamSASL, mech *mechanism) {
	id := iamIdentity{region: s.Region, profile: s.Profile, role: s.RoleARN, externalID: s.ExternalID, sts: s.STSEndpoint}
	source := &iamSource{id: id, client: k.aws}
	who := "the default credentials"
	switch {
	case s.AccessKeyID != "":
		who = "the static keys"
		source.static = &aws.Credentials{
			AccessKeyID:     m.secret("spec.sasl.accessKeyID", s.AccessKeyID).Reveal(),
			SecretAccessKey: m.secret("spec.sasl.secretAccessKey", s.SecretAccessKey).Reveal(),
			Source:          "spec.sasl",
		}
		if s.SessionToken != "" {
			source.static.SessionToken = m.secret("spec.sasl.sessionToken", s.SessionToken).Reveal()
		}
		c := source.static
		id.keys = sha256.Sum256(fmt.Appendf(nil, "%q %q %q", c.AccessKeyID, c.SecretAccessKey, c.SessionToken))
	case s.Profile != "":
		who = "profile " + s.Profile
	}
	if s.RoleARN != "" {
		who = s.RoleARN
	}
	mech.text = fmt.Sprintf("%s in %s as %s", s.Mechanism, s.Region, who)
	keys := k.share(id, mech.text, source)
	mech.close = func() { k.unshare(id) }
	mech.refused = keys.doubt
	mech.Mechanism = bearer(keys.doubt, func(ctx context.Context) (oauth.Auth, error) {
		c, err := keys.get(ctx)
		if err != nil {
			return oauth.Auth{}, err
		}
		token, _, err := signer.GenerateAuthTokenFromCredentialsProvider(ctx, s.Region, credentials.StaticCredentialsProvider{Value: c})
		if err != nil {
			return oauth.Auth{}, fmt.Errorf("sign the request: %w", err)
		}
		return oauth.Auth{Token: token}, nil
	})
}

// share returns the keys of an identity. Whoever has them gives them back by unshare.
func (k *Keeper) share(id iamIdentity, text string, source *iamSource) *renewing[aws.Credentials] {
	k.mu.Lock()
	defer k.mu.Unlock()
	shared := k.iam[id]
	if shared == nil {
		shared = &sharedIAM{renewing: &renewing[aws.Credentials]{keeper: k, text: text, fetch: source.fetch}}
		k.iam[id] = shared
	}
	shared.users++
	return shared.renewing
}

func (k *Keeper) unshare(id iamIdentity) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if shared := k.iam[id]; shared != nil {
		if shared.users--; shared.users == 0 {
			delete(k.iam, id)
		}
	}
}

// iamSource is where keys come from.
type iamSource struct {
	id     iamIdentity
	static *aws.Credentials // nil: a profile, or where the SDK looks by default
	client aws.HTTPClient   // nil: the SDK's own
}

func (s *iamSource) fetch(ctx context.Context) (l lease[aws.Credentials], err error) {
	// The configuration is read anew each time: the files it comes from are replaced too.
	opts := []func(*config.LoadOptions) error{
		config.WithRegion(s.id.region),
		config.WithRetryMaxAttempts(2), // whoever needs the keys tries again
	}
	if s.client != nil {
		opts = append(opts, config.WithHTTPClient(s.client))
	}
	from := "where the AWS SDK looks by default"
	switch {
	case s.static != nil:
		opts = append(opts, config.WithCredentialsProvider(credentials.StaticCredentialsProvider{Value: *s.static}))
		from = "of spec.sasl"
	case s.id.profile != "":
		opts = append(opts, config.WithSharedConfigProfile(s.id.profile))
		from = "in profile " + s.id.profile
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return l, fmt.Errorf("find AWS keys %s: %w", from, err)
	}
	if s.id.role != "" {
		client := sts.NewFromConfig(cfg, func(o *sts.Options) {
			if s.id.sts != "" {
				o.BaseEndpoint = &s.id.sts
			}
		})
		assume := stscreds.NewAssumeRoleProvider(client, s.id.role, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = sessionName
			if s.id.externalID != "" {
				o.ExternalID = &s.id.externalID
			}
		})
		if l.value, err = assume.Retrieve(ctx); err != nil {
			return l, fmt.Errorf("assume role %s: %w", s.id.role, brieferAWS(err))
		}
	} else if l.value, err = cfg.Credentials.Retrieve(ctx); err != nil {
		return l, fmt.Errorf("find AWS keys %s: %w", from, brieferAWS(err))
	}
	switch {
	case l.value.CanExpire:
		l.expires = l.value.Expires
	case s.static == nil:
		l.renew = time.Now().Add(rereadKeys)
	}
	return l, nil
}

// brieferAWS keeps an error of the SDK to one line.
func brieferAWS(err error) error { return errors.New(brief(err.Error())) }
