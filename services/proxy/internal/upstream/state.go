package upstream

import (
	"context"
	"errors"
	"net"
	"time"
)

// State is whether a cluster answers:
//
//	untried --refresh--> answering <--refresh-- suspect
//	   '------------failed or silent------------^
//	   ^--------reconfigured, if it was never reached'
//
// Nobody waits for a suspect cluster: what is known of it is shown, at first as it
// was and after a while with no partition led by anyone, and the keeper alone goes
// on asking.
type State struct {
	Reached bool      // it has answered once
	Suspect bool      // the last refresh failed, or has been silent for longer than anybody waits
	Since   time.Time // when it became or ceased to be suspect
	Err     error     // why it is suspect
}

// silence is how long a refresh may take: long enough for one frozen broker to be
// given up and the next to answer.
const silence = patience + patience/2

var errSilent = errors.New("no broker answers")

// State is the present one.
func (c *Cluster) State() State { return *c.state.Load() }

// Changed is closed with the next change of Metadata or State. To miss none, take it
// before looking at them.
func (c *Cluster) Changed() <-chan struct{} {
	c.told.Lock()
	defer c.told.Unlock()
	return c.changed
}

// Tried waits until the cluster has answered for the first time, or has failed to.
func (c *Cluster) Tried(ctx context.Context) error {
	for {
		changed, state := c.Changed(), c.State()
		switch {
		case state.Reached:
			return nil
		case state.Suspect:
			return c.unavailable(state.Err)
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return c.unavailable(net.ErrClosed)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tell wakes those who wait for a change. c.told is held.
func (c *Cluster) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// suspect notes that the cluster does not answer.
func (c *Cluster) suspect(why error) {
	c.told.Lock()
	defer c.told.Unlock()
	was := c.State()
	if was.Suspect {
		if !errors.Is(why, errSilent) {
			was.Err = why // says more
			c.state.Store(&was)
		}
		return
	}
	now := State{Reached: was.Reached, Suspect: true, Since: time.Now(), Err: why}
	c.state.Store(&now)
	c.tell()
	c.refreshSoon()
	c.log.Warn("upstream cluster does not answer", "cluster", c.cfg.Name, "err", why)
	if was.Reached {
		time.AfterFunc(c.cfg.LeaderlessAfter, func() { c.bereave(now.Since) })
	}
}

// untried has a cluster waited for that never answered: it may where it is now.
func (c *Cluster) untried() {
	c.told.Lock()
	defer c.told.Unlock()
	if was := c.State(); was.Suspect && !was.Reached {
		c.state.Store(&State{Since: time.Now()})
		c.tell()
	}
}

// bereave shows a cluster without leaders that has been suspect since then.
func (c *Cluster) bereave(since time.Time) {
	c.told.Lock()
	defer c.told.Unlock()
	state := c.State()
	if !state.Suspect || !state.Since.Equal(since) {
		return
	}
	s := c.current.Load()
	c.current.Store(&snapshot{Metadata: s.known.leaderless(), known: s.known, at: s.at})
	c.tell()
}

// confirmed notes what the cluster has answered.
func (c *Cluster) confirmed(m *Metadata) {
	c.told.Lock()
	defer c.told.Unlock()
	was, before := c.State(), c.Metadata()
	c.current.Store(&snapshot{Metadata: m, known: m, at: time.Now()})
	if was.Suspect || !was.Reached {
		c.state.Store(&State{Reached: true, Since: time.Now()})
		if was.Suspect {
			c.log.Info("upstream cluster answers again", "cluster", c.cfg.Name, "after", time.Since(was.Since).Round(time.Millisecond))
		}
	}
	if was.Suspect || m != before {
		c.tell()
	}
}
