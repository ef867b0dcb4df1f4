package openai

import (
	"bytes"

	"rex/fanout-service/jsonwalk"
	"rex/fanout-service/provider"
)

// Event implements provider.Wire.
func (wire) Event(data []byte, into *provider.Delta) error {
	if string(bytes.TrimSpace(data)) == "[DONE]" {
		into.Over = true
		return nil
	}
	return read(data, "delta", into)
}

// Whole implements provider.Wire.
func (wire) Whole(body []byte, into *provider.Delta) error { return read(body, "message", into) }

// read reads a completion object, whose choice holds the text under the given name.
func read(data []byte, name string, d *provider.Delta) error {
	w := jsonwalk.New(data)
	for w.Open('{'); w.More('}'); {
		switch string(w.Key()) {
		case "choices":
			choices(&w, name, d)
		case "usage":
			usage(&w, d)
		case "error":
			if raw := w.Raw(); string(raw) != "null" {
				d.Fault = raw
			}
		case "object":
			if kind, ok := w.String(); ok && string(kind) == "error" {
				d.Fault = data
			}
		default:
			w.Skip()
		}
	}
	return w.End()
}

func choices(w *jsonwalk.Cursor, name string, d *provider.Delta) {
	position := 0
	for w.List(); w.More(']'); position++ {
		before := *d
		if !provider.IsFirst(choice(w, name, d), position) {
			*d = before
		}
	}
}

// choice returns its index, -1 when it has none.
func choice(w *jsonwalk.Cursor, name string, d *provider.Delta) (index int64) {
	index = -1
	for w.Object(); w.More('}'); {
		switch key := w.Key(); {
		case string(key) == name:
			piece(w, d)
		case string(key) == "finish_reason":
			if reason, ok := w.String(); ok && len(reason) > 0 {
				d.Finish = finish(reason)
			}
		case string(key) == "index":
			index = w.Count()
		default:
			w.Skip()
		}
	}
	return index
}

func finish(reason []byte) provider.Finish {
	switch string(reason) {
	case "length", "max_tokens", "model_length":
		return provider.CutByLength
	case "tool_calls", "function_call":
		return provider.CalledTools
	case "content_filter":
		return provider.Filtered
	case "error": // OpenRouter and Mistral
		return provider.Broken
	default: // servers have many words for it
		return provider.Stopped
	}
}

func piece(w *jsonwalk.Cursor, d *provider.Delta) {
	thought := false
	for w.Object(); w.More('}'); {
		switch string(w.Key()) {
		case "content":
			content(w, d)
		case "reasoning_content", "reasoning":
			// Some servers send the same reasoning under both names.
			if text, ok := w.String(); ok && !thought && len(text) > 0 {
				thought = true
				d.Think(text)
			}
		case "refusal":
			text, ok := w.String()
			d.Generated = d.Generated || ok && len(text) > 0
		case "tool_calls":
			d.Generated = d.Generated || w.Peek() == '['
			w.Skip()
		default:
			w.Skip()
		}
	}
}

// content reads text, or Mistral's list of parts: {"type":"text","text":…} and
// {"type":"thinking","thinking":[{"type":"text","text":…}]}.
func content(w *jsonwalk.Cursor, d *provider.Delta) {
	if w.Peek() != '[' {
		if text, ok := w.String(); ok {
			d.Say(text)
		}
		return
	}
	for w.List(); w.More(']'); {
		for w.Object(); w.More('}'); {
			switch string(w.Key()) {
			case "text":
				if text, ok := w.String(); ok {
					d.Say(text)
				}
			case "thinking":
				for w.List(); w.More(']'); {
					d.Think(w.Member("text"))
				}
			default:
				w.Skip()
			}
		}
	}
}

func usage(w *jsonwalk.Cursor, d *provider.Delta) {
	for w.Object(); w.More('}'); {
		switch string(w.Key()) {
		case "prompt_tokens":
			d.Usage.Input = w.Count()
		case "completion_tokens":
			d.Usage.Output = w.Count()
		case "prompt_tokens_details":
			d.Usage.Cached = w.MemberCount("cached_tokens")
		case "completion_tokens_details":
			d.Usage.Reasoning = w.MemberCount("reasoning_tokens")
		default:
			w.Skip()
		}
	}
}
