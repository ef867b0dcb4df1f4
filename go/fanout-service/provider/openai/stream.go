package openai

import (
	"bytes"
	"errors"
	"io"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider/jsonwalk"
	"rex/fanout-service/provider/sse"
)

// stream folds the events of one answer.
type stream struct {
	sink       fanout.Sink
	abandon    func()      // ends the exchange
	patience   *time.Timer // runs from the finish reason on: only the usage is still awaited
	text       jsonwalk.Text
	said       bool // text has been passed on
	finished   bool
	isFiltered bool
	answer     fanout.Answer
}

// read passes the text on until [DONE], the end of the body, or a failure.
func (s *stream) read(events *sse.Reader) (fanout.Answer, error) {
	defer func() {
		if s.patience != nil {
			s.patience.Stop()
		}
	}()
	for {
		data, err := events.Next()
		if err != nil {
			return s.end(err)
		}
		if string(bytes.TrimSpace(data)) == "[DONE]" {
			return s.end(nil)
		}
		var c chunk
		if err := c.parse(data); err != nil {
			if s.finished { // the answer is whole; what follows can only add a usage
				continue
			}
			return fanout.Answer{}, err
		}
		s.count(c.usage)
		if s.finished {
			continue
		}
		s.sink.Progress(c.generated)
		if err := s.say(c.text); err != nil {
			return fanout.Answer{}, err
		}
		if len(c.finish) > 0 {
			if err := s.finish(c.finish); err != nil {
				return fanout.Answer{}, err
			}
		}
	}
}

// say passes a piece of text on, repaired.
func (s *stream) say(raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	piece, characters := s.text.Add(raw)
	return s.pass(piece, characters)
}

func (s *stream) pass(piece []byte, characters int) error {
	if characters == 0 {
		return nil
	}
	s.said = true
	return s.sink.Text(piece, characters)
}

func (s *stream) finish(reason []byte) error {
	s.finished = true
	switch string(reason) {
	case "length", "max_tokens":
		s.answer.FinishReason = fanout.FinishLength
	case "tool_calls", "function_call":
		s.answer.FinishReason = fanout.FinishToolCalls
	case "content_filter":
		s.isFiltered = true
	default: // servers have many words for it
		s.answer.FinishReason = fanout.FinishStop
	}
	s.patience = time.AfterFunc(afterFinish, s.abandon)
	piece, characters := s.text.Rest()
	return s.pass(piece, characters)
}

// count keeps the latest usage: where it comes more than once, it is cumulative.
func (s *stream) count(u usage) {
	if !u.present {
		return
	}
	s.answer.InputTokens = sensible(u.input)
	s.answer.OutputTokens = sensible(u.output)
	s.answer.CachedTokens = zeroIfNil(sensible(u.cached))
	s.answer.ReasoningTokens = zeroIfNil(sensible(u.reasoning))
}

// end judges the answer once nothing more will come; err is why, nil for [DONE].
func (s *stream) end(err error) (fanout.Answer, error) {
	switch {
	case s.isFiltered:
		return fanout.Answer{}, fanout.Fail(fanout.ContentFilter, "")
	case s.finished && !s.said:
		return fanout.Answer{}, fanout.Fail(fanout.BadUpstreamResponse, "an empty answer")
	case s.finished:
		return s.answer, nil
	case err == nil:
		return fanout.Answer{}, fanout.Fail(fanout.Incomplete, "no finish reason")
	case errors.Is(err, sse.ErrTooLong):
		return fanout.Answer{}, fanout.Fail(fanout.ResponseTooLarge, "an event over %d MiB", maxEvent>>20)
	case errors.Is(err, io.EOF):
		return fanout.Answer{}, fanout.Fail(fanout.Incomplete, "the stream ended")
	default:
		return fanout.Answer{}, fanout.Fail(fanout.Incomplete, "the connection broke")
	}
}

func sensible(n int64) *int64 {
	if n < 0 || n > maxTokens {
		return nil
	}
	return &n
}

func zeroIfNil(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
