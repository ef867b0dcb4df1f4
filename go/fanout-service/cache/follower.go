package cache

import (
	"context"
	"io"
	"slices"
	"time"

	fanout "rex/fanout-service"
)

// Follower reads one flight. Next, Leads, HandOver and Leave are not to be called at the same time.
type Follower struct {
	flight   *Flight
	deadline time.Time
	wake     chan struct{} // there is more to read
	leading  bool          // what Next gave last is this follower's to pay

	// The flight's lock guards the rest.
	waiting bool
	left    bool
	leads   bool
	from    int // the place in the log from which on it leads: what is before was another's
	event   int // the place in the log: the event to read next,
	offset  int // and how much of its text was read
	taken   int // bytes of the log's text that were read
}

// Leads says whether the attempts are this follower's, who started the flight or took it over: for
// what the last Next gave. Before the first, it says who started it.
func (w *Follower) Leads() bool { return w.leading }

// Next appends to into what was published since the last Next, and waits when there is nothing. It
// returns io.EOF behind the last event, and the context's cause when ctx ends. The texts belong to
// the flight and must not be changed; Call and At are the leader's.
func (w *Follower) Next(ctx context.Context, into []fanout.Event) ([]fanout.Event, error) {
	f := w.flight
	for {
		if ctx.Err() != nil {
			return into, context.Cause(ctx)
		}
		f.mu.Lock()
		before := len(into)
		into = w.take(into)
		ended := f.over || w.left
		w.waiting = len(into) == before && !ended
		blocked := f.blocked && len(into) > before
		if blocked {
			f.blocked = false
		}
		f.mu.Unlock()
		if blocked {
			f.hasRoom()
		}
		if len(into) > before {
			return into, nil
		}
		if ended {
			return into, io.EOF
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
		}
	}
}

// take appends what the follower has not read: events, and of a text it has begun, the rest. What is
// its own, and what is not, it gives apart.
func (w *Follower) take(into []fanout.Event) []fanout.Event {
	before := len(into)
	if w.leads && w.event < w.from {
		w.leading = false
		if into = w.upTo(w.from, into); len(into) > before {
			return into
		}
	}
	w.leading = w.leads
	return w.upTo(len(w.flight.log), into)
}

// upTo takes what is before a place in the log.
func (w *Follower) upTo(end int, into []fanout.Event) []fanout.Event {
	log := w.flight.log
	for ; w.event < end; w.event, w.offset = w.event+1, 0 {
		event := log[w.event]
		if !isText(event.Type) {
			into = append(into, event)
			continue
		}
		if size := len(event.Text); size > w.offset {
			event.Text = event.Text[w.offset:size:size]
			into = append(into, event)
			w.taken, w.offset = w.taken+size-w.offset, size
		}
		if w.event == len(log)-1 {
			break // it may still grow
		}
	}
	return into
}

// Unread is what is left to pay for by a follower that leads and leaves before it has read all.
type Unread struct {
	Events []fanout.Event
	Own    int // from this one on they are its own to pay for: what is before was another's
	// Last says that nobody else follows: attempts that are under way behind the events end now, and
	// are its own too.
	Last bool
}

// HandOver is Leave for who has not read to the end. If this follower leads, another leads from now
// on, and pays for what it reads from there. What is left to this one it returns.
func (w *Follower) HandOver() (unread Unread) {
	f := w.flight
	f.mu.Lock()
	if w.leads && !w.left {
		unread = w.settle()
	}
	deserted := w.remove()
	f.mu.Unlock()
	if deserted {
		f.end()
	}
	return unread
}

// settle does what HandOver says. What the leader has read it has paid for; what the heir has read,
// it took for another's. The lock is held.
func (w *Follower) settle() Unread {
	f := w.flight
	from, to, last := max(w.event, w.from), len(f.log), true
	if at := slices.IndexFunc(f.followers, func(other *Follower) bool { return other != w }); at >= 0 {
		heir := f.followers[at]
		heir.leads, heir.from = true, from
		to, last = max(from, heir.event), false
	}
	events := slices.Clone(f.log[w.event:to])
	if len(events) > 0 { // of a text it had begun, the rest
		text := events[0].Text
		events[0].Text = text[min(w.offset, len(text)):]
	}
	return Unread{Events: events, Own: from - w.event, Last: last}
}

// Leave ends the following. With the last one goes the flight: its log is dropped, and the leader's
// context ends. A second Leave does nothing.
func (w *Follower) Leave() {
	f := w.flight
	f.mu.Lock()
	deserted := w.remove()
	f.mu.Unlock()
	if deserted {
		f.end()
	}
}

// remove takes the follower out, and says whether it was the last. The lock is held.
func (w *Follower) remove() (deserted bool) {
	if w.left {
		return false
	}
	f := w.flight
	w.left, w.leads = true, false
	f.followers = slices.DeleteFunc(f.followers, func(other *Follower) bool { return other == w })
	if len(f.followers) > 0 {
		return false
	}
	f.over, f.log = true, nil
	f.grow(-f.bytes)
	return true
}

// rouse wakes the follower if it waits.
func (w *Follower) rouse() {
	if !w.waiting {
		return
	}
	w.waiting = false
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
