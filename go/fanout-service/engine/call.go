package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"

	fanout "rex/fanout-service"
)

// call is one call in flight: its state, its pending events, and the sink its provider fills.
type call struct {
	owner *Run
	spec  *fanout.Call
	ctx   context.Context
	stop  context.CancelCauseFunc
	watch watchdog
	room  chan struct{} // a pending batch was taken: there is room again

	mu      sync.Mutex // guards what the reader takes; held for nanoseconds, by two goroutines
	pending []fanout.Event
	bytes   int // of pending text
	queued  bool
	waiting bool
	spare   []byte

	// Only the call's own goroutine uses the rest.
	timing     fanout.Timing
	characters int // of the answer so far
	size       int // of the answer so far, in escaped bytes
}

func newCall(r *Run, spec *fanout.Call) *call {
	c := &call{
		owner: r, spec: spec, room: make(chan struct{}, 1),
		timing: fanout.NoTiming,
	}
	c.ctx, c.stop = context.WithCancelCause(r.ctx)
	return c
}

func (c *call) run() {
	defer c.stop(nil)
	upstream := c.owner.engine.providers[c.spec.Provider]
	c.timing.Queued = c.owner.since()
	c.push(fanout.Event{Type: fanout.Started, Attempt: 1, At: c.timing.Queued}, true)

	total := c.spec.Timeouts.Total
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithTimeoutCause(c.ctx, total,
		fanout.Fail(fanout.TimeoutTotal, "%d ms", total.Milliseconds()))
	defer cancel()
	c.watch.start(c.spec.Timeouts, c.stop)
	answer, err := c.attempt(upstream)
	c.watch.end()

	event := fanout.Event{At: c.owner.since(), Timing: c.timing}
	if err == nil {
		event.Type, event.FinishReason = fanout.Finished, answer.FinishReason
		event.Usage = c.usage(&answer)
	} else {
		event.Type, event.Failure = fanout.Failed, asFailure(err)
		if c.characters > 0 {
			event.Usage = c.usage(&fanout.Answer{})
		}
	}
	c.logEnd(&event, errors.Is(err, ErrReaderGone) || errors.Is(err, context.Canceled))
	c.push(event, true)
}

// attempt turns a panic of a provider into a failure of its call alone.
func (c *call) attempt(upstream Upstream) (answer fanout.Answer, err error) {
	defer func() {
		if caught := recover(); caught != nil {
			// Not the value: it may hold a piece of the prompt or the answer.
			c.owner.engine.log.Error("a provider panicked", "provider", c.spec.Provider,
				"type", fmt.Sprintf("%T", caught), "stack", string(debug.Stack()))
			err = fanout.Fail(fanout.Internal, "")
		}
	}()
	return upstream.Provider.Stream(c.ctx, c.spec, upstream.Keys[0], c)
}

// asFailure names an error. One that is nobody's Failure is our own fault, unless the reader has
// left: then nobody will see it.
func asFailure(err error) *fanout.Failure {
	var failure *fanout.Failure
	if errors.As(err, &failure) {
		return failure
	}
	return fanout.Fail(fanout.Internal, "")
}

// Connected implements fanout.Sink.
func (c *call) Connected() {
	c.timing.Connect = c.owner.since()
	c.watch.connected()
}

// Allowed implements fanout.Sink.
func (c *call) Allowed(fanout.Allowance) {}

// Thought implements fanout.Sink.
func (c *call) Thought([]byte, int) error { return nil }

// Progress implements fanout.Sink.
func (c *call) Progress(generated bool) { c.watch.progress(generated) }

// Text implements fanout.Sink.
func (c *call) Text(escaped []byte, characters int) error {
	at := c.owner.since()
	first := c.timing.FirstToken == fanout.Never
	if first {
		c.timing.FirstToken = at
	}
	c.timing.LastToken = at
	c.characters += characters
	c.size += len(escaped)
	if c.size > c.owner.engine.config.MaxAnswer {
		return fanout.Fail(fanout.ResponseTooLarge, "over %d bytes", c.owner.engine.config.MaxAnswer)
	}
	if err := c.waitForRoom(len(escaped)); err != nil {
		return err
	}
	c.push(fanout.Event{Type: fanout.Chunk, Text: escaped, At: at}, first)
	return nil
}

// waitForRoom blocks while the reader is behind by more than the bound, so that TCP slows the
// provider. The stall timer rests meanwhile: it is not the provider that stalls.
func (c *call) waitForRoom(size int) error {
	for {
		c.mu.Lock()
		if c.bytes == 0 || c.bytes+size <= c.owner.engine.config.MaxPending {
			c.mu.Unlock()
			return nil
		}
		c.waiting = true
		c.mu.Unlock()
		c.watch.rest()
		select {
		case <-c.room:
			c.watch.progress(true)
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
}

// push queues an event for the reader. Text joins the text that is already pending.
func (c *call) push(event fanout.Event, urgent bool) {
	event.Call = c.spec.ID
	c.mu.Lock()
	c.bytes += len(event.Text)
	last := len(c.pending) - 1
	if event.Type == fanout.Chunk && last >= 0 && c.pending[last].Type == fanout.Chunk {
		c.pending[last].Text = append(c.pending[last].Text, event.Text...)
	} else {
		if event.Type == fanout.Chunk {
			event.Text = append(c.spare[:0], event.Text...)
			c.spare = nil
		}
		c.pending = append(c.pending, event)
	}
	queued := c.queued
	c.queued = true
	c.mu.Unlock()
	if urgent {
		select {
		case c.owner.urgent <- struct{}{}:
		default:
		}
	}
	if !queued {
		c.owner.ready <- c
	}
}

// take moves the pending events to the reader's batch.
func (c *call) take(batch []fanout.Event) []fanout.Event {
	c.mu.Lock()
	batch = append(batch, c.pending...)
	clear(c.pending)
	c.pending = c.pending[:0]
	c.bytes = 0
	c.queued = false
	waiting := c.waiting
	c.waiting = false
	c.mu.Unlock()
	if waiting {
		select {
		case c.room <- struct{}{}:
		default:
		}
	}
	return batch
}

func (c *call) giveBack(text []byte) {
	c.mu.Lock()
	c.spare = text[:0]
	c.mu.Unlock()
}

// usage is what the provider counted, and an estimate of a token per four characters where it
// did not.
func (c *call) usage(answer *fanout.Answer) *fanout.Usage {
	usage := fanout.Usage{CachedTokens: answer.CachedTokens, ReasoningTokens: answer.ReasoningTokens}
	if answer.InputTokens != nil {
		usage.InputTokens = *answer.InputTokens
	} else {
		usage.InputTokens, usage.Estimated = estimate(c.spec.Characters()), true
	}
	if answer.OutputTokens != nil {
		usage.OutputTokens = *answer.OutputTokens
	} else {
		usage.OutputTokens, usage.Estimated = estimate(c.characters), true
	}
	return &usage
}

func estimate(characters int) int64 { return int64(characters+3) / 4 }

func (c *call) logEnd(event *fanout.Event, readerGone bool) {
	outcome, status := "finished", 0
	if event.Failure != nil {
		outcome, status = string(event.Failure.Kind), event.Failure.Status
	}
	if readerGone {
		outcome = "reader_gone"
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("request_id", c.owner.request.RequestID),
		slog.String("fanout_id", c.owner.request.ID),
		slog.String("call", c.spec.ID),
		slog.String("provider", c.spec.Provider),
		slog.String("model", c.spec.Model),
		slog.Int("attempt", 1),
		slog.String("outcome", outcome),
		slog.Int64("latency_ms", (event.At-c.timing.Queued).Milliseconds()),
	)
	if status != 0 {
		attrs = append(attrs, slog.Int("status", status))
	}
	if c.timing.FirstToken != fanout.Never {
		attrs = append(attrs, slog.Int64("first_token_ms", (c.timing.FirstToken-c.timing.Queued).Milliseconds()))
	}
	if event.Usage != nil {
		attrs = append(attrs, slog.Int64("input_tokens", event.Usage.InputTokens),
			slog.Int64("output_tokens", event.Usage.OutputTokens))
	}
	c.owner.engine.log.LogAttrs(context.Background(), slog.LevelInfo, "call", attrs...)
}
