package portal_test

import (
	"testing"

	"tollgate.internal/services/portal"
)

func configOn(t *testing.T) portal.Config { return portal.Config{Database: sqlite(t)} }
