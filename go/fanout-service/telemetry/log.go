package telemetry

import (
	"context"
	"log/slog"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// NewLog writes a line at the end of every attempt, call and fan-out: who asked, what was asked of
// whom, and what came of it. A line is a warning when the provider is at fault, or a reader was.
func NewLog(log *slog.Logger) engine.Observer { return &lines{log} }

type lines struct{ log *slog.Logger }

func (l *lines) Fanout(ctx context.Context, request *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	began := time.Now()
	return ctx, func(record *engine.FanoutRecord) {
		level := slog.LevelInfo
		if record.Outcome != engine.OutcomeDone {
			level = slog.LevelWarn
		}
		var room [10]slog.Attr
		attrs := appendRequest(room[:0], request)
		attrs = append(attrs,
			slog.Int("calls", len(request.Calls)),
			slog.Int("finished", record.End.Finished),
			slog.Int("failed", record.End.Failed),
			slog.String("outcome", record.Outcome),
			milliseconds("latency_ms", time.Since(began)),
		)
		l.log.LogAttrs(ctx, level, "fanout", attrs...)
	}
}

func (l *lines) Call(ctx context.Context, request *fanout.Request, call *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	return ctx, func(record *engine.CallRecord) {
		var room [20]slog.Attr
		attrs := appendRequest(room[:0], request)
		attrs = append(attrs,
			slog.String("call", call.ID),
			slog.String("provider", record.Target.Provider),
			slog.String("model", record.Target.Model),
			slog.Int("attempts", record.Attempts),
			slog.String("outcome", record.Outcome),
			milliseconds("latency_ms", record.Elapsed),
			slog.String("cache", string(record.Cache)),
		)
		if record.Age > 0 {
			attrs = append(attrs, milliseconds("cached_age_ms", record.Age))
		}
		attrs = appendFailure(attrs, record.Failure)
		attrs = appendUsage(attrs, record.Usage)
		l.log.LogAttrs(ctx, severity(record.Failure), "call", attrs...)
	}
}

func (l *lines) Attempt(ctx context.Context, request *fanout.Request, call *fanout.Call, attempt *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	return ctx, func(record *engine.AttemptRecord) {
		var room [24]slog.Attr
		attrs := appendRequest(room[:0], request)
		attrs = append(attrs,
			slog.String("call", call.ID),
			slog.Int("attempt", attempt.Number),
			slog.String("reason", string(attempt.Reason)),
			slog.String("provider", attempt.Target.Provider),
			slog.String("model", attempt.Target.Model),
			slog.String("key", record.KeyID),
			slog.String("outcome", record.Outcome),
			milliseconds("latency_ms", record.Elapsed),
		)
		timing := &record.Timing
		attrs = appendSpan(attrs, "queue_ms", timing.Queued, timing.Admitted)
		attrs = appendSpan(attrs, "connect_ms", timing.Admitted, timing.Connect)
		attrs = appendSpan(attrs, "first_token_ms", timing.Admitted, timing.FirstToken)
		attrs = appendFailure(attrs, record.Failure)
		if record.Wait != fanout.Never && record.Failure != nil {
			attrs = append(attrs, milliseconds("wait_ms", record.Wait))
		}
		attrs = appendUsage(attrs, record.Usage)
		l.log.LogAttrs(ctx, severity(record.Failure), "attempt", attrs...)
	}
}

func severity(failure *fanout.Failure) slog.Level {
	if failure != nil && failure.ProviderFault() {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func appendRequest(attrs []slog.Attr, request *fanout.Request) []slog.Attr {
	attrs = append(attrs, slog.String("request_id", request.RequestID), slog.String("fanout_id", request.ID))
	if request.Workspace != "" {
		attrs = append(attrs, slog.String("workspace", request.Workspace))
	}
	return attrs
}

func appendFailure(attrs []slog.Attr, failure *fanout.Failure) []slog.Attr {
	if failure == nil {
		return attrs
	}
	if failure.Status != 0 {
		attrs = append(attrs, slog.Int("status", failure.Status))
	}
	if failure.RetryAfter > 0 {
		attrs = append(attrs, milliseconds("retry_after_ms", failure.RetryAfter))
	}
	return attrs
}

func appendUsage(attrs []slog.Attr, usage *fanout.Usage) []slog.Attr {
	if usage == nil {
		return attrs
	}
	return append(attrs, slog.Int64("input_tokens", usage.InputTokens), slog.Int64("output_tokens", usage.OutputTokens))
}

// appendSpan adds the time between two moments, when both came.
func appendSpan(attrs []slog.Attr, name string, from, to time.Duration) []slog.Attr {
	if took := between(from, to); took >= 0 {
		return append(attrs, slog.Int64(name, took))
	}
	return attrs
}

func milliseconds(name string, d time.Duration) slog.Attr { return slog.Int64(name, d.Milliseconds()) }
