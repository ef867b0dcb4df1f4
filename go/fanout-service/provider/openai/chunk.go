package openai

import (
	fanout "rex/fanout-service"
	"rex/fanout-service/provider/jsonwalk"
)

// maxTokens is more than any answer can have: a count beyond it is nonsense.
const maxTokens = 1_000_000_000

// chunk is what we need of one event of the stream. Its slices point into the event.
type chunk struct {
	text      []byte // the inside of a JSON string
	finish    []byte
	generated bool // the model produced something: text, reasoning or a tool call
	usage     usage
}

// usage holds -1 for a count that is absent or no number.
type usage struct {
	present                          bool
	input, output, cached, reasoning int64
}

// parse reads one event. It fails with a *fanout.Failure when the event is no JSON object, or
// carries an error.
func (c *chunk) parse(data []byte) error {
	w := jsonwalk.New(data)
	var fault []byte
	for w.Open('{'); w.More('}'); {
		switch string(w.Key()) {
		case "choices":
			c.choices(&w)
		case "usage":
			c.usage.parse(&w)
		case "error":
			if raw := w.Raw(); string(raw) != "null" {
				fault = raw
			}
		case "object":
			if kind, ok := w.String(); ok && string(kind) == "error" {
				fault = data
			}
		default:
			w.Skip()
		}
	}
	if w.End() != nil {
		return fanout.Fail(fanout.BadUpstreamResponse, "an event that is no JSON object")
	}
	if fault != nil {
		return fanout.Fail(eventKind(fault), "an error inside the stream")
	}
	return nil
}

func (c *chunk) choices(w *jsonwalk.Cursor) {
	if w.Peek() != '[' {
		w.Skip()
		return
	}
	for w.Open('['); w.More(']'); {
		if w.Peek() != '{' {
			w.Skip()
			continue
		}
		for w.Open('{'); w.More('}'); {
			switch string(w.Key()) {
			case "delta":
				c.delta(w)
			case "finish_reason":
				if reason, ok := w.String(); ok {
					c.finish = reason
				}
			default:
				w.Skip()
			}
		}
	}
}

func (c *chunk) delta(w *jsonwalk.Cursor) {
	if w.Peek() != '{' {
		w.Skip()
		return
	}
	for w.Open('{'); w.More('}'); {
		switch string(w.Key()) {
		case "content":
			if text, ok := w.String(); ok {
				c.text = text
				c.generated = c.generated || len(text) > 0
			}
		case "reasoning_content", "reasoning", "refusal":
			text, ok := w.String()
			c.generated = c.generated || ok && len(text) > 0
		case "tool_calls":
			c.generated = c.generated || w.Peek() == '['
			w.Skip()
		default:
			w.Skip()
		}
	}
}

func (u *usage) parse(w *jsonwalk.Cursor) {
	if w.Peek() != '{' {
		w.Skip()
		return
	}
	*u = usage{present: true, input: -1, output: -1}
	for w.Open('{'); w.More('}'); {
		switch string(w.Key()) {
		case "prompt_tokens":
			u.input = count(w)
		case "completion_tokens":
			u.output = count(w)
		case "prompt_tokens_details":
			u.cached = detail(w, "cached_tokens")
		case "completion_tokens_details":
			u.reasoning = detail(w, "reasoning_tokens")
		default:
			w.Skip()
		}
	}
}

func detail(w *jsonwalk.Cursor, name string) int64 {
	if w.Peek() != '{' {
		w.Skip()
		return 0
	}
	n := int64(0)
	for w.Open('{'); w.More('}'); {
		if string(w.Key()) == name {
			n = count(w)
		} else {
			w.Skip()
		}
	}
	return n
}

func count(w *jsonwalk.Cursor) int64 {
	if n, ok := w.Int(); ok {
		return n
	}
	return -1
}
