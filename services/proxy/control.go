package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// runControlled is Run with a control plane.
func runControlled(ctx context.Context, cfg *Config) error {
	if cfg.source == nil {
		return errors.New("serving what a control plane says is not part of this build")
	}
	g, err := newGateway(cfg)
	if err != nil {
		return err
	}
	defer g.close()
	return g.run(ctx)
}

// control begins to follow the control plane, until life ends. Without an error clients
// can be let in.
func (g *gateway) control(ctx, life context.Context, wg *sync.WaitGroup) error {
	ready := make(chan struct{})
	ended := make(chan error, 1)
	wg.Go(func() {
		err := g.cfg.source.Run(life, g, sync.OnceFunc(func() { close(ready) }))
		if err != nil && life.Err() == nil {
			g.cfg.Log.Error("the control plane is no longer followed", "err", err)
		}
		ended <- err
	})
	select {
	case <-ready:
		return nil
	case err := <-ended:
		return fmt.Errorf("follow the control plane: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}
