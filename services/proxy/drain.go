package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate.internal/pkg/version"
	"tollgate.internal/services/proxy/internal/balance"
	"tollgate.internal/services/proxy/internal/fleet"
	"tollgate.internal/services/proxy/internal/refusal"
	"tollgate.internal/services/proxy/internal/session"
)

// leaving is how far the node has come in leaving the fleet, as [fleet.State] draws it.
// Within draining there are these steps (PROTOCOL.md §H3):
//
//	announced   clients are sent elsewhere, /readyz says 503; everybody is served as before
//	  | Config.DrainGrace, for balancers and other nodes to learn of it
//	moving      nobody is let in; one session after the other ends, between two requests
//	  | Config.DrainSpread, or what the command says
//	finishing   every session was asked to end; those that wait for a broker still do
//	  | Config.DrainTimeout, at most: then they are closed
//	drained     nobody is left
//
// A node that was told to drain by a command stays as it is then, and comes back when it
// is told to. One that ends goes the same way, from wherever it is, and then ends.
type leaving struct {
	mu      sync.Mutex
	state   fleet.State
	step    string
	since   time.Time // of the step
	until   time.Time // the step is over then; zero: that depends
	changed chan struct{}
	load    float64
	weight  int
	inside  int           // sessions
	left    chan struct{} // signalled when nobody is inside any more
	moving  bool          // nobody is let in

	leave  bool // what is wanted
	over   time.Duration
	final  bool            // the process ends: it does not come back
	wanted context.Context // ends when something else is wanted
	turn   context.CancelFunc
}

// The steps of a drain, as the status has them.
const (
	stepAnnounced = "announced"
	stepMoving    = "moving"
	stepFinishing = "finishing"
)

func newLeaving() *leaving {
	l := &leaving{state: fleet.Serving, since: time.Now(), weight: balance.Full, changed: make(chan struct{}), left: make(chan struct{}, 1)}
	l.wanted, l.turn = context.WithCancel(context.Background())
	return l
}

// want says whether the node is to leave.
func (l *leaving) want(leave, final bool, over time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.final || l.leave == leave && !final {
		return
	}
	l.final = final
	if l.leave == leave {
		return
	}
	l.leave, l.over = leave, over
	l.turn()
	l.wanted, l.turn = context.WithCancel(context.Background())
}

// note says that what others are told has changed. The mutex is held.
func (l *leaving) note() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *leaving) enter(state fleet.State, step string, lasts time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.step, l.since, l.until = step, time.Now(), time.Time{}
	if lasts > 0 {
		l.until = l.since.Add(lasts)
	}
	if l.state != state {
		l.state = state
		l.note()
	}
}

func (l *leaving) loaded(load float64, weight int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.load = load
	if l.weight != weight {
		l.weight = weight
		l.note()
	}
}

func (l *leaving) setMoving(moving bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moving = moving
}

// enters counts a session. One whose handshake began before nobody was let in any more
// ends at once.
func (l *leaving) enters(s *session.Session) {
	l.mu.Lock()
	l.inside++
	moving := l.moving
	l.mu.Unlock()
	if moving {
		s.Drain()
	}
}

func (l *leaving) leaves() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside--; l.inside == 0 {
		select {
		case l.left <- struct{}{}:
		default:
		}
	}
}

func (l *leaving) sessions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inside
}

// Report, Drain and Undrain make the gateway a [fleet.Self].
var _ fleet.Self = (*gateway)(nil)

// Report is what the node says of itself.
func (g *gateway) Report() (r fleet.Report, changed <-chan struct{}) {
	l := g.leaving
	l.mu.Lock()
	defer l.mu.Unlock()
	return fleet.Report{State: l.state, Sessions: l.inside, Load: l.load, Weight: l.weight}, l.changed
}

// Drain makes the node leave.
func (g *gateway) Drain(over time.Duration) {
	if over <= 0 {
		over = g.cfg.DrainSpread
	}
	g.leaving.want(true, false, over)
}

// Undrain makes it serve again.
func (g *gateway) Undrain() { g.leaving.want(false, false, 0) }

// steer takes the node where it is wanted, until ctx ends.
func (g *gateway) steer(ctx context.Context) {
	l := g.leaving
	for ctx.Err() == nil {
		l.mu.Lock()
		leave, over, state, wanted := l.leave, l.over, l.state, l.wanted
		l.mu.Unlock()
		step, cancel := context.WithCancel(ctx)
		undo := context.AfterFunc(wanted, cancel)
		switch {
		case leave && state != fleet.Drained:
			g.drain(step, over)
		case !leave && state != fleet.Serving:
			if err := g.comeBack(); err != nil {
				g.cfg.Log.Error("listeners not opened again", "err", err)
				pause(step, time.Second)
			}
		default:
			<-step.Done()
		}
		undo()
		cancel()
	}
}

// comeBack opens the sockets again. It is tried until it succeeds: somebody else may
// have taken a port.
func (g *gateway) comeBack() error {
	if err := g.listener.Resume(); err != nil {
		return err
	}
	g.leaving.setMoving(false)
	g.checks.Set(checkListeners, nil)
	g.leaving.enter(fleet.Serving, "", 0)
	g.cfg.Log.Info("serving again")
	return nil
}

// drained waits until nobody is left, once the process is to end; or until the listener
// has ended, and returns what it said.
func (g *gateway) drained(served <-chan error) (ended bool, err error) {
	for {
		report, changed := g.Report()
		if report.State == fleet.Drained {
			return false, nil
		}
		select {
		case <-changed:
		case err := <-served:
			return true, err
		}
	}
}

var errDraining = errors.New("draining")

// drain moves every client off. It ends early with ctx.
func (g *gateway) drain(ctx context.Context, over time.Duration) {
	l := g.leaving
	l.enter(fleet.Draining, stepAnnounced, g.cfg.DrainGrace)
	g.checks.Set(checkListeners, errDraining)
	g.cfg.Log.Info("draining", "sessions", l.sessions(), "grace", g.cfg.DrainGrace, "spread", over, "timeout", g.cfg.DrainTimeout)
	if !pause(ctx, g.cfg.DrainGrace) {
		return
	}
	l.setMoving(true)
	g.listener.Pause()
	l.enter(fleet.Draining, stepMoving, over)
	if !g.moveOff(ctx, over) {
		return
	}
	l.enter(fleet.Draining, stepFinishing, g.cfg.DrainTimeout)
	if !g.finishAll(ctx) {
		return
	}
	l.enter(fleet.Drained, "", 0)
	g.cfg.Log.Info("drained")
}

// pause waits; false: ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// moveEvery is the shortest time between two steps of moving clients off.
const moveEvery = 10 * time.Millisecond

// moveOff asks one session after the other to end, evenly over the time and in no
// order, so that no tenant's are all moved at once. It is over early when nobody is left.
func (g *gateway) moveOff(ctx context.Context, over time.Duration) bool {
	sessions := g.allSessions()
	rand.Shuffle(len(sessions), func(i, j int) { sessions[i], sessions[j] = sessions[j], sessions[i] })
	began, total := time.Now(), len(sessions)
	for asked := 0; asked < total && g.leaving.sessions() > 0; {
		due := total
		if over > 0 {
			due = min(total, 1+int(float64(total)*float64(time.Since(began))/float64(over)))
		}
		for ; asked < due; asked++ {
			sessions[asked].Drain()
		}
		if asked == total {
			break
		}
		next := time.NewTimer(max(moveEvery, over/time.Duration(total)))
		select {
		case <-next.C:
		case <-g.leaving.left:
		case <-ctx.Done():
		}
		next.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
	return ctx.Err() == nil
}

// finishAll waits until nobody is left, and closes who is left in the end.
func (g *gateway) finishAll(ctx context.Context) bool {
	limit := time.NewTimer(g.cfg.DrainTimeout)
	defer limit.Stop()
	for g.leaving.sessions() > 0 {
		select {
		case <-g.leaving.left:
		case <-limit.C:
			left := g.allSessions()
			g.cfg.Log.Warn("the time for draining is over", "sessions", len(left))
			for _, s := range left {
				s.End(refusal.Draining.Errorf("the time for draining is over"))
			}
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

var (
	descState  = prometheus.NewDesc("tollgate_proxy_node_state", "1 for the state that the node is in: serving, draining, drained.", []string{"state"}, nil)
	descInside = prometheus.NewDesc("tollgate_proxy_node_sessions", "Client connections of all virtual clusters: those that are left, when the node drains.", nil, nil)
	descLoad   = prometheus.NewDesc("tollgate_proxy_node_load_ratio", "Share of its processors that the node used in the last seconds.", nil, nil)
	descWeight = prometheus.NewDesc("tollgate_proxy_node_weight", "How many clients the node is sent beside others with internal balancing: 4, and less for a while when it is overloaded.", nil, nil)
)

func (g *gateway) collectNode(out chan<- prometheus.Metric) {
	report, _ := g.Report()
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	for _, state := range []fleet.State{fleet.Serving, fleet.Draining, fleet.Drained} {
		v := 0.0
		if report.State == state {
			v = 1
		}
		gauge(descState, v, string(state))
	}
	gauge(descInside, float64(report.Sessions))
	gauge(descLoad, report.Load)
	gauge(descWeight, float64(report.Weight))
}

// NodeStatus is how the node itself is.
type NodeStatus struct {
	ID       string     `json:"id,omitempty"`
	Version  string     `json:"version"`
	State    string     `json:"state"`           // serving, draining, drained
	Step     string     `json:"step,omitempty"`  // of draining: announced, moving, finishing
	Since    time.Time  `json:"since"`           // that this is so
	Until    *time.Time `json:"until,omitempty"` // the step is over then
	Sessions int        `json:"sessions"`        // that are left
	Load     float64    `json:"load"`            // share of its processors
	Weight   int        `json:"weight"`          // of 4: how many clients it is sent, beside other nodes
}

func (g *gateway) nodeStatus() NodeStatus {
	report, _ := g.Report()
	l := g.leaving
	l.mu.Lock()
	defer l.mu.Unlock()
	s := NodeStatus{Version: version.String(), State: string(l.state), Step: l.step, Since: l.since.UTC(), Sessions: report.Sessions, Load: report.Load, Weight: report.Weight}
	if g.cfg.Control != nil {
		s.ID = g.cfg.Control.Node
	}
	if !l.until.IsZero() {
		until := l.until.UTC()
		s.Until = &until
	}
	return s
}
