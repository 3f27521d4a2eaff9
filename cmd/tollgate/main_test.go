package main

import (
	"os"
	"testing"
)

// The test binary is the command too, for what starts one: editors, shells.
func TestMain(m *testing.M) {
	if os.Getenv("TOLLGATE_AS_COMMAND") != "" {
		main()
	}
	os.Exit(m.Run())
}
