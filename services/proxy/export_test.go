package proxy

import "tollgate.internal/services/proxy/internal/fleet"

// From has a node served by a source that is not the control plane's.
func From(cfg Config, source fleet.Source, control Control) Config {
	cfg.Resources, cfg.Control, cfg.source = "", &control, source
	return cfg
}

// Self has the gateway shown that is made of the configuration.
func (c *Config) Self(show func(fleet.Self)) { c.self = show }
