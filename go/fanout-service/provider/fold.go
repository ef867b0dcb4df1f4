package provider

import (
	"errors"
	"io"
	"net/http"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/jsonwalk"
	"rex/fanout-service/provider/memory"
	"rex/fanout-service/provider/sse"
)

// afterFinish is how long a finished answer waits for the usage and its last event.
const afterFinish = 2 * time.Second

// fold makes one answer of what its events say.
type fold struct {
	sink     fanout.Sink
	thoughts bool        // they are asked for
	abandon  func()      // ends the exchange
	patience *time.Timer // runs from the finish on: only the usage is still awaited
	text     jsonwalk.Text
	thought  jsonwalk.Text
	said     bool // text has been passed on
	called   bool // a tool was called, whatever the finish reason will say
	finish   Finish
	usage    Usage
	delta    Delta
	first    [2]Piece // most events have no more
}

func newFold(sink fanout.Sink, thoughts bool, abandon func()) *fold {
	f := &fold{sink: sink, thoughts: thoughts, abandon: abandon, usage: NoUsage}
	f.delta.Pieces = f.first[:0]
	return f
}

// stream passes the text on until the last event, the end of the body, or a failure.
func (f *fold) stream(events *sse.Reader, wire Wire) error {
	defer func() {
		if f.patience != nil {
			f.patience.Stop()
		}
	}()
	for {
		data, err := events.Next()
		if err != nil {
			return f.end(err, events.Stray())
		}
		f.delta.Reset()
		err = wire.Event(data, &f.delta)
		if err == nil && f.delta.Fault != nil {
			err = faultOf(f.delta.Fault).failure("an error inside the stream")
		}
		switch {
		case err != nil && f.finish == Unfinished:
			return asFailure(err, "an event that is no JSON object")
		case err != nil: // the answer is whole; what follows can only add a usage
			continue
		}
		if err := f.add(&f.delta); err != nil {
			return err
		}
		if f.delta.Over {
			return f.end(nil, nil)
		}
	}
}

// whole reads an answer in one piece. Nothing of it counts before its last byte.
func (f *fold) whole(response *http.Response, wire Wire, bound *memory.Bound) error {
	hold := bound.Hold()
	defer func() { _ = hold.Resize() }() // shrinking never fails
	body, err := hold.ReadAll(response.Body, maxEvent)
	switch {
	case errors.Is(err, memory.ErrFull):
		return errCrowdedMemory
	case err != nil:
		return fanout.Fail(fanout.Incomplete, "the connection broke")
	case len(body) > maxEvent:
		return fanout.Fail(fanout.ResponseTooLarge, "over %d MiB", maxEvent>>20)
	}
	f.delta.Reset()
	if err := wire.Whole(body, &f.delta); err != nil {
		return asFailure(err, "not a JSON object")
	}
	if f.delta.Fault != nil {
		return faultOf(f.delta.Fault).failure("an error instead of an answer")
	}
	if err := f.add(&f.delta); err != nil {
		return err
	}
	if f.patience != nil {
		f.patience.Stop()
	}
	return f.end(nil, nil)
}

// add takes one event over.
func (f *fold) add(d *Delta) error {
	f.usage.add(d.Usage)
	if f.finish != Unfinished {
		return nil
	}
	if !d.Idle {
		f.sink.Progress(d.Generated || len(d.Pieces) > 0)
	}
	for _, piece := range d.Pieces {
		if err := f.pass(piece); err != nil {
			return err
		}
	}
	f.called = f.called || d.Called
	if d.Finish == Unfinished {
		return nil
	}
	f.finish = d.Finish
	if f.finish == Stopped && f.called {
		f.finish = CalledTools
	}
	f.patience = time.AfterFunc(afterFinish, f.abandon)
	return f.flush()
}

// pass hands a piece on, repaired.
func (f *fold) pass(piece Piece) error {
	if piece.Thought {
		if !f.thoughts {
			return nil
		}
		if escaped, characters := f.thought.Add(piece.Text); characters > 0 {
			return f.sink.Thought(escaped, characters)
		}
		return nil
	}
	escaped, characters := f.text.Add(piece.Text)
	return f.say(escaped, characters)
}

func (f *fold) say(escaped []byte, characters int) error {
	if characters == 0 {
		return nil
	}
	f.said = true
	return f.sink.Text(escaped, characters)
}

// flush passes on what half a surrogate pair at the very end comes to.
func (f *fold) flush() error {
	if rest, characters := f.thought.Rest(); characters > 0 {
		if err := f.sink.Thought(rest, characters); err != nil {
			return err
		}
	}
	return f.say(f.text.Rest())
}

// end judges the answer once nothing more will come: err is why, nil behind the last event; stray
// holds the lines that belonged to no event.
func (f *fold) end(err error, stray []byte) error {
	switch {
	case f.finish == Filtered:
		return fanout.Fail(fanout.ContentFilter, "")
	case f.finish == Broken:
		return fanout.Fail(fanout.ServerError, "it ended the answer with an error")
	case f.finish != Unfinished && !f.said:
		failure := fanout.Fail(fanout.BadUpstreamResponse, "an empty answer")
		failure.Blameless = f.finish == CutByLength // what was asked for left no room for text
		return failure
	case f.finish != Unfinished:
		return nil
	case err == nil:
		return fanout.Fail(fanout.Incomplete, "no finish reason")
	case errors.Is(err, memory.ErrFull):
		return errCrowdedMemory
	case errors.Is(err, sse.ErrTooLong):
		return fanout.Fail(fanout.ResponseTooLarge, "an event over %d MiB", maxEvent>>20)
	}
	if object, ok := errorObject(stray); ok {
		return faultOf(object).failure("an error inside the stream")
	}
	if errors.Is(err, io.EOF) {
		return fanout.Fail(fanout.Incomplete, "the stream ended")
	}
	return fanout.Fail(fanout.Incomplete, "the connection broke")
}

// errCrowdedMemory ends an answer that is no larger than may be, but one of too many such.
var errCrowdedMemory = fanout.Fail(fanout.ResponseTooLarge, "too many answers of this size at once")

// answer is what the events came to. Beside a failure only its counts mean something.
func (f *fold) answer() fanout.Answer {
	reason := fanout.FinishStop
	switch f.finish {
	case CutByLength:
		reason = fanout.FinishLength
	case CalledTools:
		reason = fanout.FinishToolCalls
	default:
	}
	return fanout.Answer{
		FinishReason:    reason,
		InputTokens:     told(f.usage.Input),
		OutputTokens:    told(f.usage.Output),
		CachedTokens:    max(f.usage.Cached, 0),
		ReasoningTokens: max(f.usage.Reasoning, 0),
	}
}

// told is nil for a count nobody made. No prompt is empty and no complete answer is, so a zero
// is no count either: proxies send them for what they do not know.
func told(n int64) *int64 {
	if n <= 0 {
		return nil
	}
	return &n
}

// asFailure names an error of a wire format; bad is the fact when it could not read the bytes.
func asFailure(err error, bad string) error {
	var failure *fanout.Failure
	if errors.As(err, &failure) {
		return failure
	}
	return fanout.Fail(fanout.BadUpstreamResponse, "%s", bad)
}
