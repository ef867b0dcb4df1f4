package telemetry

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

type callKey struct{}

// callSpan is the span of a call, and of its first attempt as long as there is no other. When there
// is, the first gets a span of its own after the fact, with the moments it had. The provider was then
// told that the call's span is the parent of what it does, which is still true.
type callSpan struct {
	tracer trace.Tracer
	ctx    context.Context // of the span
	span   trace.Span
	call   *fanout.Call

	mu    sync.Mutex
	ended bool // before its attempts: others follow what the call began
	more  bool // than one attempt
	first firstAttempt
}

// firstAttempt is kept until the end of the call says whether it needs a span.
type firstAttempt struct {
	made   engine.Attempt
	began  time.Time
	ended  time.Time // zero while it goes on
	record engine.AttemptRecord
	usage  fanout.Usage // of record
}

// begin notes that an attempt begins, and says whether the call's span is also the attempt's.
func (c *callSpan) begin(attempt *engine.Attempt) bool {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.first.began.IsZero() || c.ended {
		c.more = true
		return false
	}
	c.first.made, c.first.began = *attempt, now
	return true
}

func (c *callSpan) firstOver(record *engine.AttemptRecord) {
	c.mu.Lock()
	c.first.ended, c.first.record = time.Now(), *record
	if record.Usage != nil { // the engine may use it again
		c.first.usage, c.first.record.Usage = *record.Usage, &c.first.usage
	}
	late := c.ended
	c.mu.Unlock()
	if late {
		c.tellFirst()
	}
}

func (c *callSpan) over(record *engine.CallRecord) {
	c.mu.Lock()
	c.ended = true
	made, more := !c.first.ended.IsZero(), c.more
	c.mu.Unlock()
	buffer := newBuffer()
	defer buffer.free()
	attrs := buffer[:0]
	attrs = append(attrs, attrCallID.String(c.call.ID), attrAttemptsMade.Int(record.Attempts),
		attrCacheResult.String(string(record.Cache)))
	if made && more {
		c.tellFirst()
	} else if made {
		attrs = appendAttempt(attrs, c.call, &c.first.record)
	}
	describe(c.span, attrs, record.Target, record.Outcome, record.Failure)
	c.span.End()
}

// tellFirst makes a span of the first attempt, which is over.
func (c *callSpan) tellFirst() {
	first := &c.first
	_, span := c.tracer.Start(c.ctx, "chat "+first.made.Target.Model,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(first.began))
	describeAttempt(span, c.call, &first.made, &first.record)
	span.End(trace.WithTimestamp(first.ended))
}
