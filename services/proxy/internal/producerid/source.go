package producerid

import (
	"errors"
	"strings"

	"tollgate.internal/pkg/fleet"
)

// Open opens the source that ref names: file:PATH, or the URL of a Redis. It
// looks at nothing yet: a source that is not there now may be there later.
// password, if it is not empty, takes the place of the URL's.
func Open(ref, password string, deployment int) (Source, error) {
	if err := checkDeployment(deployment); err != nil {
		return nil, err
	}
	if path, ok := strings.CutPrefix(ref, "file:"); ok && path != "" && !strings.HasPrefix(path, "//") {
		if password != "" {
			return nil, errors.New("a file has no password")
		}
		return openFile(path), nil
	}
	if fleet.IsURL(ref) {
		return openRedis(ref, password, deployment)
	}
	return nil, errors.New("must be file:PATH or redis://HOST:PORT; also rediss:// and unix://") // ref may hold a password
}
