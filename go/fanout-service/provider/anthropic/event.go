package anthropic

import (
	"rex/fanout-service/jsonwalk"
	"rex/fanout-service/provider"
)

// Event implements provider.Wire. An event's type is in its data too; types that are not known say
// nothing, as the API asks of its readers.
func (wire) Event(data []byte, into *provider.Delta) error {
	w := jsonwalk.New(data)
	var kind []byte
	for w.Open('{'); w.More('}'); {
		switch string(w.Key()) {
		case "type":
			kind, _ = w.String()
		case "message": // of message_start: the answer so far, whose count of the output is none yet
			answer(&w, into)
			into.Usage.Output = -1
		case "content_block", "delta":
			piece(&w, into)
		case "usage":
			usage(&w, into)
		case "error":
			fault(&w, into)
		default:
			w.Skip()
		}
	}
	switch string(kind) {
	case "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error":
	case "message_stop":
		into.Over = true
	case "ping":
		into.Idle = true
	default:
		if into.Fault == nil {
			into.Reset()
		}
	}
	return w.End()
}

// Whole implements provider.Wire.
func (wire) Whole(body []byte, into *provider.Delta) error {
	w := jsonwalk.New(body)
	answer(&w, into)
	return w.End()
}

// answer reads a message object.
func answer(w *jsonwalk.Cursor, d *provider.Delta) {
	for w.Open('{'); w.More('}'); {
		switch string(w.Key()) {
		case "content":
			for w.List(); w.More(']'); {
				piece(w, d)
			}
		case "stop_reason":
			stop(w, d)
		case "usage":
			usage(w, d)
		case "error":
			fault(w, d)
		default:
			w.Skip()
		}
	}
}

// piece reads a content block, or what an event adds to one. Each kind of content has a member of
// its own name; what has none of these is a signature, or a citation.
func piece(w *jsonwalk.Cursor, d *provider.Delta) {
	for w.Object(); w.More('}'); {
		switch string(w.Key()) {
		case "text":
			text, _ := w.String()
			d.Say(text)
		case "thinking":
			text, _ := w.String()
			d.Think(text)
		case "partial_json", "input", "data": // a tool call, redacted thinking
			d.Generated = true
			w.Skip()
		case "stop_reason":
			stop(w, d)
		default:
			w.Skip()
		}
	}
}

func stop(w *jsonwalk.Cursor, d *provider.Delta) {
	reason, ok := w.String()
	if !ok {
		return
	}
	switch string(reason) {
	case "max_tokens", "model_context_window_exceeded":
		d.Finish = provider.CutByLength
	case "tool_use":
		d.Finish = provider.CalledTools
	case "refusal":
		d.Finish = provider.Filtered
	default: // end_turn, stop_sequence, pause_turn
		d.Finish = provider.Stopped
	}
}

// usage counts all input: what was read from the provider's cache and written to it is told apart
// from the rest.
func usage(w *jsonwalk.Cursor, d *provider.Delta) {
	input, read, written := int64(-1), int64(-1), int64(-1)
	for w.Object(); w.More('}'); {
		switch string(w.Key()) {
		case "input_tokens":
			input = w.Count()
		case "cache_read_input_tokens":
			read = w.Count()
		case "cache_creation_input_tokens":
			written = w.Count()
		case "output_tokens":
			d.Usage.Output = w.Count()
		case "output_tokens_details":
			d.Usage.Reasoning = w.MemberCount("thinking_tokens")
		default:
			w.Skip()
		}
	}
	d.Usage.Cached = read
	if input >= 0 {
		d.Usage.Input = input + max(read, 0) + max(written, 0)
	}
}

func fault(w *jsonwalk.Cursor, d *provider.Delta) {
	if raw := w.Raw(); string(raw) != "null" {
		d.Fault = raw
	}
}
