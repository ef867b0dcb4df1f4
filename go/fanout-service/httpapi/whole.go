package httpapi

import (
	fanout "rex/fanout-service"
)

// maxWhole bounds the text of all answers of a fan-out that is answered in one piece: it waits here
// until the last call has ended.
const maxWhole = 64 << 20

// whole gathers the answer of POST /fanout in one piece.
type whole struct {
	calls []wholeCall
	at    map[string]int // where a call is in calls
	bytes int
	over  func() // called when the text gets too long; it ends the calls
	end   []byte
}

// wholeCall is one call's part, in pieces of JSON.
type wholeCall struct {
	id             string
	hasThoughts    bool // thoughts were asked for
	text, thoughts []byte
	events, result []byte
}

func newWhole(calls []fanout.Call, over func()) *whole {
	w := &whole{calls: make([]wholeCall, len(calls)), at: make(map[string]int, len(calls)), over: over}
	for i := range calls {
		w.calls[i] = wholeCall{id: calls[i].ID, hasThoughts: calls[i].Thoughts}
		w.at[calls[i].ID] = i
	}
	return w
}

// take gathers a batch of events. Texts are copied, since they are valid for now only.
func (w *whole) take(events []fanout.Event, end *fanout.End) error {
	for i := range events {
		w.add(&w.calls[w.at[events[i].Call]], &events[i])
	}
	if end != nil {
		w.end = appendEnd(nil, end)
	}
	return nil
}

func (w *whole) add(c *wholeCall, e *fanout.Event) {
	switch e.Type {
	case fanout.Chunk, fanout.Thought:
		if w.bytes+len(e.Text) > maxWhole {
			w.over()
			return
		}
		w.bytes += len(e.Text)
		if e.Type == fanout.Chunk {
			c.text = append(c.text, e.Text...)
		} else {
			c.thoughts = append(c.thoughts, e.Text...)
		}
	case fanout.Finished, fanout.Failed:
		c.result = appendEvent(nil, e)
	case fanout.Started: // whatever came before it is void
		w.bytes -= len(c.text) + len(c.thoughts)
		c.text, c.thoughts = c.text[:0], c.thoughts[:0]
		c.addEvent(e)
	case fanout.Queued, fanout.AttemptFailed:
		c.addEvent(e)
	}
}

func (c *wholeCall) addEvent(e *fanout.Event) {
	if len(c.events) > 0 {
		c.events = append(c.events, ',')
	}
	c.events = appendEvent(c.events, e)
}

// json returns the body.
func (w *whole) json() []byte {
	b := append(make([]byte, 0, w.bytes+1024*len(w.calls)), `{"v":2,"calls":[`...)
	for i := range w.calls {
		c := &w.calls[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"call":"`...)
		b = append(b, c.id...)
		b = append(b, `","text":"`...)
		b = append(b, c.text...)
		if c.hasThoughts {
			b = append(b, `","thoughts":"`...)
			b = append(b, c.thoughts...)
		}
		b = append(b, `","events":[`...)
		b = append(b, c.events...)
		b = append(b, `],"result":`...)
		b = append(b, c.result...)
		b = append(b, '}')
	}
	b = append(b, `],`...)
	b = append(b, w.end...)
	return append(b, '}', '\n')
}
