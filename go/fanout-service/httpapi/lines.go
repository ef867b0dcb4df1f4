package httpapi

import (
	"encoding/json"
	"strconv"
	"time"

	fanout "rex/fanout-service"
)

// lines writes the answer of POST /fanout as a stream, a line and a flush a batch.
type lines struct {
	out *flow
	n   int64
	buf []byte
}

func (l *lines) write(events []fanout.Event, end *fanout.End) error {
	l.n++
	l.buf = append(l.buf[:0], `{"n":`...)
	l.buf = strconv.AppendInt(l.buf, l.n, 10)
	l.buf = append(l.buf, `,"ev":[`...)
	for i := range events {
		if i > 0 {
			l.buf = append(l.buf, ',')
		}
		l.buf = appendEvent(l.buf, &events[i])
	}
	l.buf = append(l.buf, ']')
	if end != nil {
		l.buf = append(l.buf, ',')
		l.buf = appendEnd(l.buf, end)
	}
	l.buf = append(l.buf, '}', '\n')
	if err := l.out.write(l.buf); err != nil {
		return err
	}
	if cap(l.buf) > 1<<20 {
		l.buf = nil
	}
	return nil
}

// appendEvent writes an event by hand: this runs for every chunk. Call ids need no escaping (the
// request's rules see to that), and text comes escaped from the provider.
func appendEvent(b []byte, e *fanout.Event) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, e.Type...)
	b = append(b, `","call":"`...)
	b = append(b, e.Call...)
	b = append(b, `","at_ms":`...)
	b = strconv.AppendInt(b, e.At.Milliseconds(), 10)
	switch e.Type {
	case fanout.Queued:
	case fanout.Started:
		b = appendAttempt(b, e.Attempt)
		b = append(b, `,"reason":"`...)
		b = append(b, e.Reason...)
		b = append(b, '"')
		b = appendTarget(b, e.Target)
	case fanout.Thought, fanout.Chunk:
		b = append(b, `,"text":"`...)
		b = append(b, e.Text...)
		b = append(b, '"')
	case fanout.AttemptFailed:
		b = appendAttempt(b, e.Attempt)
		b = appendFailure(b, e.Failure)
		b = append(b, `,"wait_ms":`...)
		b = appendMoment(b, e.Wait)
		b = appendUsage(b, e.Usage)
		b = appendTiming(b, e.Timing)
	case fanout.Finished:
		b = appendAttempt(b, e.Attempt)
		b = appendTarget(b, e.Target)
		b = append(b, `,"finish_reason":"`...)
		b = append(b, e.FinishReason...)
		b = append(b, '"')
		b = appendUsage(b, e.Usage)
		b = appendTiming(b, e.Timing)
		b = append(b, `,"cached_age_ms":`...)
		b = appendMoment(b, e.CachedAge)
	case fanout.Failed:
		b = appendAttempt(b, e.Attempt)
		b = appendFailure(b, e.Failure)
		b = appendUsage(b, e.Usage)
		b = appendTiming(b, e.Timing)
	}
	return append(b, '}')
}

func appendAttempt(b []byte, attempt int) []byte {
	b = append(b, `,"attempt":`...)
	return strconv.AppendInt(b, int64(attempt), 10)
}

// appendTarget escapes the model, whose rules allow for quotes.
func appendTarget(b []byte, t fanout.Target) []byte {
	b = append(b, `,"provider":"`...)
	b = append(b, t.Provider...)
	b = append(b, `","model":`...)
	return appendString(b, t.Model)
}

// appendString writes text that is not escaped yet.
func appendString(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(text)
			if err != nil {
				return append(b, `"?"`...) // a string always marshals
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

func appendFailure(b []byte, f *fanout.Failure) []byte {
	b = append(b, `,"kind":"`...)
	b = append(b, f.Kind...)
	b = append(b, `","message":`...)
	b = appendString(b, f.Message())
	b = append(b, `,"retryable":`...)
	b = strconv.AppendBool(b, f.Retryable())
	b = append(b, `,"status":`...)
	b = appendUnless(b, int64(f.Status), 0)
	b = append(b, `,"retry_after_ms":`...)
	return appendUnless(b, f.RetryAfter.Milliseconds(), 0)
}

func appendUsage(b []byte, u *fanout.Usage) []byte {
	b = append(b, `,"usage":`...)
	if u == nil {
		return append(b, `null`...)
	}
	b = append(b, `{"input_tokens":`...)
	b = strconv.AppendInt(b, u.InputTokens, 10)
	b = append(b, `,"output_tokens":`...)
	b = strconv.AppendInt(b, u.OutputTokens, 10)
	b = append(b, `,"cached_tokens":`...)
	b = strconv.AppendInt(b, u.CachedTokens, 10)
	b = append(b, `,"reasoning_tokens":`...)
	b = strconv.AppendInt(b, u.ReasoningTokens, 10)
	b = append(b, `,"estimated":`...)
	b = strconv.AppendBool(b, u.Estimated)
	return append(b, '}')
}

func appendTiming(b []byte, t fanout.Timing) []byte {
	b = append(b, `,"timing_ms":{"queued":`...)
	b = appendMoment(b, t.Queued)
	b = append(b, `,"admitted":`...)
	b = appendMoment(b, t.Admitted)
	b = append(b, `,"connect":`...)
	b = appendMoment(b, t.Connect)
	b = append(b, `,"first_token":`...)
	b = appendMoment(b, t.FirstToken)
	b = append(b, `,"last_token":`...)
	b = appendMoment(b, t.LastToken)
	return append(b, '}')
}

func appendMoment(b []byte, moment time.Duration) []byte {
	if moment == fanout.Never {
		return append(b, `null`...)
	}
	return strconv.AppendInt(b, moment.Milliseconds(), 10)
}

// appendUnless writes n, or null when it is the value that means "none".
func appendUnless(b []byte, n, none int64) []byte {
	if n == none {
		return append(b, `null`...)
	}
	return strconv.AppendInt(b, n, 10)
}

func appendEnd(b []byte, end *fanout.End) []byte {
	b = append(b, `"end":{"calls":`...)
	b = strconv.AppendInt(b, int64(end.Calls), 10)
	b = append(b, `,"finished":`...)
	b = strconv.AppendInt(b, int64(end.Finished), 10)
	b = append(b, `,"failed":`...)
	b = strconv.AppendInt(b, int64(end.Failed), 10)
	b = append(b, `,"elapsed_ms":`...)
	b = strconv.AppendInt(b, end.Elapsed.Milliseconds(), 10)
	return append(b, '}')
}
