package fleet

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// SlowAfter is when an answer of Redis is late: news take noticeably longer by way of it
// then. It is in use all the same, until it does not answer within the bound of a command.
const SlowAfter = time.Second

// paceMemory is for how long a late answer is remembered.
const paceMemory = 10 * time.Second

// Pace is how long a Redis takes over its answers, connecting included, as those
// find who ask. What a command waits for by intention does not count.
type Pace struct {
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]time.Time // since when; answers that were waited for longer
	seconds [paceMemory / time.Second]paceSecond
}

// paceSecond is one second: the longest that was waited, and that for an answer which came.
type paceSecond struct {
	second          int64 // Unix time
	longest, answer time.Duration
}

// Watch measures what is asked by a client from now on.
func Watch(client redis.UniversalClient) *Pace {
	p := &Pace{waiting: make(map[uint64]time.Time)}
	client.AddHook(pacer{p})
	return p
}

// Longest is the longest that anybody waited within the last seconds, or waits now.
func (p *Pace) Longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	longest := time.Duration(0)
	for _, since := range p.waiting {
		longest = max(longest, now.Sub(since))
	}
	for _, s := range p.seconds {
		if now.Unix()-s.second < int64(len(p.seconds)) {
			longest = max(longest, s.longest)
		}
	}
	return longest
}

// Answered is the longest that an answer took within the last seconds, of those that came.
func (p *Pace) Answered() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, longest := time.Now().Unix(), time.Duration(0)
	for _, s := range p.seconds {
		if now-s.second < int64(len(p.seconds)) {
			longest = max(longest, s.answer)
		}
	}
	return longest
}

// Slow reports whether answers are late.
func (p *Pace) Slow() (by time.Duration, late bool) {
	by = p.Longest()
	return by.Round(100 * time.Millisecond), by >= SlowAfter
}

// begin counts from when an answer could come.
func (p *Pace) begin(intended time.Duration) (id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	p.waiting[p.next] = time.Now().Add(intended)
	return p.next
}

func (p *Pace) end(id uint64, answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	took := now.Sub(p.waiting[id])
	delete(p.waiting, id)
	s := &p.seconds[now.Unix()%int64(len(p.seconds))]
	if s.second != now.Unix() {
		*s = paceSecond{second: now.Unix()}
	}
	s.longest = max(s.longest, took)
	if answered {
		s.answer = max(s.answer, took)
	}
}

// pacer is a hook of go-redis.
type pacer struct{ *Pace }

func (p pacer) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (p pacer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		id := p.begin(intended(cmd))
		err := next(ctx, cmd)
		p.end(id, answered(err))
		return err
	}
}

func (p pacer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		id := p.begin(0)
		err := next(ctx, cmds)
		p.end(id, answered(err))
		return err
	}
}

// answered reports whether Redis said something, be it that there is nothing, or no.
func answered(err error) bool {
	if err == nil {
		return true
	}
	_, is := err.(redis.Error) //nolint:errorlint // what wraps it was added on this side
	return is
}

// intended is how long a command is to wait at most.
func intended(cmd redis.Cmder) time.Duration {
	args := cmd.Args()
	switch cmd.Name() {
	case "xread":
		for i := range args[:len(args)-1] {
			word, _ := args[i].(string)
			if ms, ok := args[i+1].(int64); ok && strings.EqualFold(word, "block") {
				return time.Duration(ms) * time.Millisecond
			}
		}
	case "blpop", "brpop":
		switch s := args[len(args)-1].(type) {
		case float64:
			return time.Duration(s * float64(time.Second))
		case int64:
			return time.Duration(s) * time.Second
		}
	}
	return 0
}
