package engine

import (
	"context"
	"time"

	fanout "rex/fanout-service"
)

// keepText is the largest text buffer kept for reuse: a burst must not pin memory.
const keepText = 4 << 10

// window decides when the next batch leaves: at once if the last one left a while ago or
// something urgent waits, else at the end of the coalescing window.
type window struct {
	run     *Run
	timer   *time.Timer
	flushed time.Time
}

func (r *Run) newWindow() *window {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &window{run: r, timer: timer}
}

// wait returns when a batch is due: with the first ready call in it, or empty for a heartbeat.
func (w *window) wait(ctx context.Context, b *batch) error {
	w.timer.Reset(w.run.engine.config.Heartbeat)
	select {
	case c := <-w.run.ready:
		b.dirty = append(b.dirty, c)
	case <-w.timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return w.rest(ctx, w.run.request.Coalesce-time.Since(w.flushed))
}

// rest returns when the window is over, or something urgent is there.
func (w *window) rest(ctx context.Context, left time.Duration) error {
	if left <= 0 {
		return nil
	}
	w.timer.Reset(left)
	select {
	case <-w.timer.C:
	case <-w.run.urgent:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// batch is what one flush carries, with the buffers it borrows from the calls.
type batch struct {
	dirty  []*call
	events []fanout.Event
}

// collect takes the pending events of every call that is ready now, and with them what is urgent:
// left behind, it would cut the next window short.
func (b *batch) collect(r *Run) {
	select {
	case <-r.urgent:
	default:
	}
	for {
		select {
		case c := <-r.ready:
			b.dirty = append(b.dirty, c)
			continue
		default:
		}
		break
	}
	for _, c := range b.dirty {
		b.events = c.take(b.events)
	}
}

// recycle gives text buffers back to their calls.
func (b *batch) recycle() {
	at := 0
	for _, c := range b.dirty {
		for ; at < len(b.events) && b.events[at].Call == c.spec.ID; at++ {
			if text := b.events[at].Text; text != nil && cap(text) <= keepText {
				c.giveBack(text)
			}
		}
	}
	clear(b.events)
	b.dirty, b.events = b.dirty[:0], b.events[:0]
}
