// Package telemetry makes logs, metrics and spans of what the engine's Observer is told. It is off
// the hot path: it hears of fan-outs, calls and attempts, never of a piece of text, and it holds
// no prompt, no answer and no key.
package telemetry

import (
	"context"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// Join tells every observer of everything, in order; each context descends from the one before.
// Those that are nil are left out, and nil is returned when none is left.
func Join(observers ...engine.Observer) engine.Observer {
	var all joined
	for _, each := range observers {
		if each != nil {
			all = append(all, each)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	default:
		return all
	}
}

type joined []engine.Observer

func (j joined) Fanout(ctx context.Context, request *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	ends := make([]func(*engine.FanoutRecord), len(j))
	for i, each := range j {
		ctx, ends[i] = each.Fanout(ctx, request)
	}
	return ctx, func(record *engine.FanoutRecord) {
		for _, end := range ends {
			end(record)
		}
	}
}

func (j joined) Call(ctx context.Context, request *fanout.Request, call *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	ends := make([]func(*engine.CallRecord), len(j))
	for i, each := range j {
		ctx, ends[i] = each.Call(ctx, request, call)
	}
	return ctx, func(record *engine.CallRecord) {
		for _, end := range ends {
			end(record)
		}
	}
}

func (j joined) Attempt(ctx context.Context, request *fanout.Request, call *fanout.Call, attempt *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	ends := make([]func(*engine.AttemptRecord), len(j))
	for i, each := range j {
		ctx, ends[i] = each.Attempt(ctx, request, call, attempt)
	}
	return ctx, func(record *engine.AttemptRecord) {
		for _, end := range ends {
			end(record)
		}
	}
}
