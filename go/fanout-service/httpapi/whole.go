package httpapi

import (
	fanout "rex/fanout-service"
)

// maxWhole bounds the text of all answers of a fan-out that is answered in one piece: it waits here
// until the last call has ended.
const maxWhole = 64 << 20

// whole gathers the answer of POST /fanout in one piece, and writes it.
type whole struct {
	calls []wholeCall
	at    map[string]int // where a call is in calls
	bytes int
	hold  func(bytes int) // told of text that is kept, or no more
	over  func()          // called when the text gets too long; it ends the calls
	out   *flow
	lost  int // calls that finished, and whose text is not all here
}

// wholeCall is one call's part, in pieces of JSON.
type wholeCall struct {
	id             string
	hasThoughts    bool // thoughts were asked for
	cut            bool // a piece was left out, so that no more is taken: what is there is a beginning
	text, thoughts []byte
	events, result []byte
}

func newWhole(calls []fanout.Call, out *flow, hold func(bytes int), over func()) *whole {
	w := &whole{
		calls: make([]wholeCall, len(calls)), at: make(map[string]int, len(calls)), hold: hold, over: over, out: out,
	}
	for i := range calls {
		w.calls[i] = wholeCall{id: calls[i].ID, hasThoughts: calls[i].Thoughts}
		w.at[calls[i].ID] = i
	}
	return w
}

// take gathers a batch of events. Texts are copied, since they are valid for now only. The answer
// is written with the last batch: until its reader has it the fan-out is in flight, for a drain, for
// its id and for whoever counts.
func (w *whole) take(events []fanout.Event, end *fanout.End) error {
	for i := range events {
		c, e := &w.calls[w.at[events[i].Call]], &events[i]
		if c.cut && e.Type == fanout.Finished {
			e.Type, e.Failure = fanout.Failed, fanout.Fail(fanout.ResponseTooLarge, "")
			w.lost++
		}
		w.add(c, e)
	}
	if end == nil {
		return nil
	}
	// The record of the fan-out is made of the same end.
	end.Finished, end.Failed = end.Finished-w.lost, end.Failed+w.lost
	w.out.w.Header().Set("Content-Type", "application/json")
	return w.out.write(w.body(end)...)
}

func (w *whole) add(c *wholeCall, e *fanout.Event) {
	switch e.Type {
	case fanout.Chunk, fanout.Thought:
		if c.cut {
			return
		}
		if w.bytes+len(e.Text) > maxWhole {
			c.cut = true
			w.over()
			return
		}
		w.keep(len(e.Text))
		if e.Type == fanout.Chunk {
			c.text = append(c.text, e.Text...)
		} else {
			c.thoughts = append(c.thoughts, e.Text...)
		}
	case fanout.Finished, fanout.Failed:
		c.result = appendEvent(nil, e)
	case fanout.Started: // whatever came before it is void
		w.keep(-len(c.text) - len(c.thoughts))
		c.text, c.thoughts, c.cut = c.text[:0], c.thoughts[:0], false
		c.addEvent(e)
	case fanout.Queued, fanout.AttemptFailed:
		c.addEvent(e)
	}
}

// keep counts text that is kept, or dropped.
func (w *whole) keep(bytes int) {
	w.bytes += bytes
	w.hold(bytes)
}

func (c *wholeCall) addEvent(e *fanout.Event) {
	if len(c.events) > 0 {
		c.events = append(c.events, ',')
	}
	c.events = appendEvent(c.events, e)
}

// body is the JSON of the answer in parts, so that no text is held twice.
func (w *whole) body(end *fanout.End) (parts [][]byte) {
	between := []byte(`{"v":2,"calls":[`)
	for i := range w.calls {
		c := &w.calls[i]
		if i > 0 {
			between = append(between, ',')
		}
		between = append(between, `{"call":"`...)
		between = append(between, c.id...)
		between = append(between, `","text":"`...)
		parts = append(parts, between, c.text)
		if c.hasThoughts {
			parts = append(parts, []byte(`","thoughts":"`), c.thoughts)
		}
		between = append([]byte(`","events":[`), c.events...)
		between = append(between, `],"result":`...)
		between = append(between, c.result...)
		between = append(between, '}')
	}
	between = append(between, `],`...)
	between = appendEnd(between, end)
	return append(parts, append(between, '}', '\n'))
}
