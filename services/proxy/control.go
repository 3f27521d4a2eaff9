package proxy

import (
	"context"
)

// runControlled is Run with a control plane.
func runControlled(ctx context.Context, cfg *Config) error {
	g, err := newGateway(cfg)
	if err != nil {
		return err
	}
	defer g.close()
	return g.run(ctx)
}
