package credential

import (
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/keytab"
)

func keytabWith(t *testing.T, name, realm string) *keytab.Keytab {
	t.Helper()
	k := keytab.New()
	if err := k.AddEntry(name, realm, "password", time.Unix(1, 0), 1, etypeID.AES256_CTS_HMAC_SHA1_96); err != nil {
		t.Fatal(err)
	}
	return k
}
