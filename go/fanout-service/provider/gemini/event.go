package gemini

import (
	"rex/fanout-service/jsonwalk"
	"rex/fanout-service/provider"
)

// Event implements provider.Wire. The stream has no last event: its end is the body's.
func (wire) Event(data []byte, into *provider.Delta) error { return read(data, into) }

// Whole implements provider.Wire: the same object as an event, with all of the text.
func (wire) Whole(body []byte, into *provider.Delta) error { return read(body, into) }

func read(data []byte, d *provider.Delta) error {
	w := jsonwalk.New(data)
	for w.Open('{'); w.More('}'); {
		switch string(w.Key()) {
		case "candidates":
			candidates(&w, d)
		case "usageMetadata":
			usage(&w, d)
		case "promptFeedback":
			if w.Member("blockReason") != nil {
				d.Finish = provider.Filtered
			}
		case "error":
			if raw := w.Raw(); string(raw) != "null" {
				d.Fault = raw
			}
		default:
			w.Skip()
		}
	}
	return w.End()
}

func candidates(w *jsonwalk.Cursor, d *provider.Delta) {
	position := 0
	for w.List(); w.More(']'); position++ {
		before := *d
		if !provider.IsFirst(candidate(w, d), position) {
			*d = before
		}
	}
}

// candidate returns its index, -1 when it has none.
func candidate(w *jsonwalk.Cursor, d *provider.Delta) (index int64) {
	index = -1
	for w.Object(); w.More('}'); {
		switch string(w.Key()) {
		case "content":
			message(w, d)
		case "finishReason":
			if reason, ok := w.String(); ok {
				d.Finish = finish(reason)
			}
		case "index":
			index = w.Count()
		default:
			w.Skip()
		}
	}
	return index
}

// message reads the content of a candidate: a list of parts.
func message(w *jsonwalk.Cursor, d *provider.Delta) {
	for w.Object(); w.More('}'); {
		if string(w.Key()) != "parts" {
			w.Skip()
			continue
		}
		for w.List(); w.More(']'); {
			onePart(w, d)
		}
	}
}

// onePart reads text, reasoning, or a tool call.
func onePart(w *jsonwalk.Cursor, d *provider.Delta) {
	var text []byte
	thought := false
	for w.Object(); w.More('}'); {
		switch string(w.Key()) {
		case "text":
			text, _ = w.String()
		case "thought":
			thought = w.Peek() == 't'
			w.Skip()
		case "thoughtSignature": // comes with parts of every kind
			w.Skip()
		case "functionCall": // the finish reason is STOP all the same
			d.Called = d.Called || w.Peek() == '{'
			d.Generated = true
			w.Skip()
		default:
			d.Generated = true
			w.Skip()
		}
	}
	if thought {
		d.Think(text)
	} else {
		d.Say(text)
	}
}

func finish(reason []byte) provider.Finish {
	switch string(reason) {
	case "MAX_TOKENS":
		return provider.CutByLength
	case "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
		"IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION":
		return provider.Filtered
	case "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS":
		return provider.CalledTools
	case "", "FINISH_REASON_UNSPECIFIED":
		return provider.Unfinished
	default: // STOP, OTHER, LANGUAGE, and what comes later
		return provider.Stopped
	}
}

// usage counts what the model thought as output: it is paid for as such.
func usage(w *jsonwalk.Cursor, d *provider.Delta) {
	answer, thoughts := int64(-1), int64(-1)
	for w.Object(); w.More('}'); {
		switch string(w.Key()) {
		case "promptTokenCount":
			d.Usage.Input = w.Count()
		case "candidatesTokenCount":
			answer = w.Count()
		case "thoughtsTokenCount":
			thoughts = w.Count()
		case "cachedContentTokenCount":
			d.Usage.Cached = w.Count()
		default:
			w.Skip()
		}
	}
	d.Usage.Reasoning = thoughts
	if answer >= 0 {
		d.Usage.Output = answer + max(thoughts, 0)
	}
}
