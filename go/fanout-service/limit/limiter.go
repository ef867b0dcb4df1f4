package limit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// Limiter admits attempts.
type Limiter struct {
	config Config
	shared *Shared
	log    *slog.Logger
	rooms  sync.Map // of *room, by provider
}

// New returns a limiter; shared is nil when this process is alone. log is told of keys that are
// refused and models that fail; it may be nil.
func New(config Config, shared *Shared, log *slog.Logger) *Limiter {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Limiter{config: config, shared: shared, log: log}
}

func (l *Limiter) prefix() string {
	if l.shared == nil {
		return ""
	}
	return l.shared.prefix
}

func (l *Limiter) room(provider string) *room {
	if r, ok := l.rooms.Load(provider); ok {
		return r.(*room)
	}
	r, _ := l.rooms.LoadOrStore(provider, newRoom(l, provider))
	return r.(*room)
}

// Admit waits until the attempt may be sent. Its error is context.Cause(ctx) or a *fanout.Failure:
// circuit_open, queue_full, rate_limited when nothing may be sent before the deadline, deadline when
// that passed in the queue, auth when every key was refused, with the time until one is tried again.
func (l *Limiter) Admit(ctx context.Context, ask Ask) (*Permit, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r := l.room(ask.Target.Provider)
	for again := false; ; again = true {
		p, w, err := r.ask(&ask, again)
		if w != nil {
			p, err = r.wait(ctx, w, &ask)
		}
		if err != nil {
			return nil, err
		}
		if l.shared == nil {
			return p, nil
		}
		switch answer := l.shared.admit(ctx, p.line, &p.slot); answer.outcome {
		case sharedGranted:
			p.confirm()
			return p, nil
		case sharedEnded:
			p.turnedAway(answer)
			return nil, context.Cause(ctx)
		default:
			p.turnedAway(answer)
		}
	}
}

// wait returns when the turn of w has come, or it is of no use any more.
func (r *room) wait(ctx context.Context, w *waiter, ask *Ask) (*Permit, error) {
	select {
	case <-w.ready: // at once: another's turn was over in the same moment
		return w.permit, w.err
	default:
	}
	if ask.Waiting != nil {
		ask.Waiting()
		ask.Waiting = nil
	}
	var deadline <-chan time.Time
	if !ask.Deadline.IsZero() {
		timer := time.NewTimer(time.Until(ask.Deadline))
		defer timer.Stop()
		deadline = timer.C
	}
	var err error
	select {
	case <-w.ready:
		return w.permit, w.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-deadline:
		err = fanout.Fail(fanout.Deadline, "in the queue")
	}
	if p := r.leave(w); p != nil {
		p.Unsent()
	}
	return nil, err
}

// Targets tells how every target stands that was asked for lately.
func (l *Limiter) Targets() []TargetState {
	var states []TargetState
	l.rooms.Range(func(_, r any) bool {
		states = r.(*room).targets(states)
		return true
	})
	return states
}
