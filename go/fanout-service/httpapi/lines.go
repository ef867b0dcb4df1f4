package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	fanout "rex/fanout-service"
)

// writeLimit is how long a reader may take nothing while there is something to send.
const writeLimit = 30 * time.Second

// lines writes the answer of POST /fanout, a line and a flush a batch.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	limit   time.Duration
	n       int64
	buf     []byte
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
		l.buf = appendEnd(l.buf, end)
	}
	l.buf = append(l.buf, '}', '\n')
	if err := l.control.SetWriteDeadline(time.Now().Add(l.limit)); err != nil {
		return err
	}
	if _, err := l.w.Write(l.buf); err != nil {
		return err
	}
	if cap(l.buf) > 1<<20 {
		l.buf = nil
	}
	return l.control.Flush()
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
	case fanout.Queued, fanout.Thought, fanout.AttemptFailed: // nothing makes these yet
	case fanout.Started:
		b = append(b, `,"attempt":`...)
		b = strconv.AppendInt(b, int64(e.Attempt), 10)
	case fanout.Chunk:
		b = append(b, `,"text":"`...)
		b = append(b, e.Text...)
		b = append(b, '"')
	case fanout.Finished:
		b = append(b, `,"finish_reason":"`...)
		b = append(b, e.FinishReason...)
		b = append(b, '"')
		b = appendUsage(b, e.Usage)
		b = appendTiming(b, e.Timing)
	case fanout.Failed:
		b = appendFailure(b, e.Failure)
		b = appendUsage(b, e.Usage)
		b = appendTiming(b, e.Timing)
	}
	return append(b, '}')
}

func appendFailure(b []byte, f *fanout.Failure) []byte {
	message, err := json.Marshal(f.Message())
	if err != nil {
		message = []byte(`"?"`) // a string always marshals
	}
	b = append(b, `,"kind":"`...)
	b = append(b, f.Kind...)
	b = append(b, `","message":`...)
	b = append(b, message...)
	b = append(b, `,"retryable":`...)
	b = strconv.AppendBool(b, f.Kind.Retryable())
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
	b = append(b, `,"end":{"calls":`...)
	b = strconv.AppendInt(b, int64(end.Calls), 10)
	b = append(b, `,"finished":`...)
	b = strconv.AppendInt(b, int64(end.Finished), 10)
	b = append(b, `,"failed":`...)
	b = strconv.AppendInt(b, int64(end.Failed), 10)
	b = append(b, `,"elapsed_ms":`...)
	b = strconv.AppendInt(b, end.Elapsed.Milliseconds(), 10)
	return append(b, '}')
}
