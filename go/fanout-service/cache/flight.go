package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	fanout "rex/fanout-service"
)

// ErrDeserted is the cause of a leader's context when nobody follows its flight any more.
var ErrDeserted = errors.New("nobody follows the flight any more")

// blockSize bounds a block of joined text, in bytes: what is larger would be copied too often as
// it grows.
const blockSize = 32 << 10

// Flight is the work of one leader that any number of followers read along. Its log only grows:
// each follower has a place of its own in it, and one that comes late reads from the start.
//
// The log holds the events with the text of neighbouring pieces joined, up to the whole answer. An
// attempt that starts voids the text before it, which is dropped: what bounds an answer bounds the
// log, and slow followers do not add to it. It is held until the last follower has left.
type Flight struct {
	cache *Cache
	key   key
	stop  context.CancelCauseFunc
	room  chan struct{} // a follower read on: there may be room again

	mu        sync.Mutex // guards the rest; shared with nothing but this flight's followers
	log       []fanout.Event
	bytes     int // of text in the log
	over      bool
	blocked   bool // WaitForRoom waits
	followers []*Follower
}

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

// Join follows the flight for workspace and digest. If there is none it starts one: lead runs in a
// goroutine of its own, under a context that has ctx's values but not its end, and ends with cause
// ErrDeserted when the last follower leaves. lead publishes the events of the call, the last of
// them Finished or Failed, behind which the flight is over and the next Join starts another. An
// answer worth keeping is Put before Finished is published, and lead should look for it with Get
// first: it may have been stored since the caller looked.
//
// deadline is the moment until which this follower wants the answer. The caller must Leave.
func (c *Cache) Join(
	ctx context.Context, workspace, digest string, deadline time.Time, lead func(context.Context, *Flight),
) *Follower {
	follower := &Follower{deadline: deadline, wake: make(chan struct{}, 1)}
	k := key{workspace, digest}
	c.mu.Lock()
	defer c.mu.Unlock()
	if flight := c.flights[k]; flight != nil && flight.add(follower) {
		return follower
	}
	flight := &Flight{cache: c, key: k, room: make(chan struct{}, 1)}
	follower.leads, follower.leading = true, true
	flight.add(follower)
	ctx, flight.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	c.flights[k] = flight
	c.leads.Go(func() { flight.run(ctx, lead) })
	return follower
}

func (f *Flight) run(ctx context.Context, lead func(context.Context, *Flight)) {
	defer f.stop(nil)
	defer func() {
		if caught := recover(); caught != nil {
			// Not the value: it may hold a piece of the prompt or the answer.
			f.cache.log.Error("the lead of a flight panicked",
				"type", fmt.Sprintf("%T", caught), "stack", string(debug.Stack()))
		}
		// Without effect when the flight is over, as it should be.
		f.Publish(&fanout.Event{Type: fanout.Failed, Failure: fanout.Fail(fanout.Internal, ""), Timing: fanout.NoTiming})
	}()
	lead(ctx, f)
}

// forget drops a flight that nobody follows; another may have taken its place.
func (c *Cache) forget(f *Flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.key] == f {
		delete(c.flights, f.key)
	}
}

// Publish adds an event to the log and wakes the followers. It copies what it keeps, and does
// nothing once the flight is over. Call and At stay the leader's.
func (f *Flight) Publish(e *fanout.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return
	}
	f.append(e)
	f.over = e.Type == fanout.Finished || e.Type == fanout.Failed
	for _, follower := range f.followers {
		follower.rouse()
	}
}

// append keeps a copy of the event, its text joined to that of the event before where that is a
// piece of the same kind, and at the later moment. Bytes once written are not written again, so
// followers may hold them.
func (f *Flight) append(e *fanout.Event) {
	f.grow(len(e.Text))
	if e.Type == fanout.Started {
		f.startOver()
	}
	if end := len(f.log) - 1; end >= 0 && isText(e.Type) {
		if block := &f.log[end]; block.Type == e.Type && len(block.Text)+len(e.Text) <= blockSize {
			if cap(block.Text)-len(block.Text) < len(e.Text) {
				// append alone grows by a quarter, and would copy the text three times as often.
				block.Text = slices.Grow(block.Text, max(len(block.Text), len(e.Text)))
			}
			block.Text = append(block.Text, e.Text...)
			block.At = e.At
			return
		}
	}
	kept := *e
	kept.Text = slices.Clone(e.Text)
	if e.Failure != nil {
		failure := *e.Failure
		kept.Failure = &failure
	}
	if e.Usage != nil {
		usage := *e.Usage
		kept.Usage = &usage
	}
	f.log = append(f.log, kept)
}

// startOver drops the text in the log: nobody has to read it any more. Followers keep what they
// have read of it.
func (f *Flight) startOver() {
	for i := range f.log {
		f.log[i].Text = nil
	}
	for _, follower := range f.followers {
		follower.taken = 0
	}
	f.grow(-f.bytes)
}

// grow counts text that comes, or goes.
func (f *Flight) grow(bytes int) {
	f.bytes += bytes
	f.cache.flightBytes.Add(int64(bytes))
}

// WaitForRoom blocks until even the follower that is furthest has no more than bound bytes to read,
// with size to come: where every reader is slow, the provider is slowed. It returns the context's
// cause when ctx ends first. One goroutine at a time may wait.
func (f *Flight) WaitForRoom(ctx context.Context, size, bound int) error {
	for {
		f.mu.Lock()
		behind := f.bytes - f.furthest()
		if f.over || behind == 0 || behind+size <= bound {
			f.mu.Unlock()
			return nil
		}
		f.blocked = true
		f.mu.Unlock()
		select {
		case <-f.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f *Flight) furthest() int {
	taken := 0
	for _, follower := range f.followers {
		taken = max(taken, follower.taken)
	}
	return taken
}

// Deadline is the latest of those who still follow, zero when nobody does.
func (f *Flight) Deadline() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var latest time.Time
	for _, follower := range f.followers {
		if follower.deadline.After(latest) {
			latest = follower.deadline
		}
	}
	return latest
}

// Bytes is how much text the flight holds.
func (f *Flight) Bytes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

func (f *Flight) count(stats *Stats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stats.Followers += len(f.followers)
}

// add takes in a follower, unless the flight is over.
func (f *Flight) add(follower *Follower) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	follower.flight = f
	f.followers = append(f.followers, follower)
	return true
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

func isText(t fanout.EventType) bool { return t == fanout.Chunk || t == fanout.Thought }

// HandOver is Leave for who has not read to the end. If this follower leads, another leads from now
// on. It returns what this one still has to pay for: attempts
// whose end it has not read and nobody else will; and whether the attempt under way is such a one.
func (w *Follower) HandOver() (unpaid []fanout.Usage, open bool) {
	f := w.flight
	f.mu.Lock()
	if w.leads && !w.left {
		unpaid, open = w.settle()
	}
	deserted := w.remove()
	f.mu.Unlock()
	if deserted {
		f.end()
	}
	return unpaid, open
}

// settle does what HandOver says. What the leader has read it has paid for; what the heir has read,
// it took for another's. The lock is held.
func (w *Follower) settle() (unpaid []fanout.Usage, open bool) {
	f := w.flight
	from, to := max(w.event, w.from), len(f.log)
	open = !f.over
	if at := slices.IndexFunc(f.followers, func(other *Follower) bool { return other != w }); at >= 0 {
		heir := f.followers[at]
		heir.leads, heir.from = true, from
		open, to = false, heir.event
	}
	for i := from; i < to; i++ {
		event := &f.log[i]
		replayed := event.Type == fanout.Finished && event.CachedAge != fanout.Never
		if event.Usage != nil && !replayed {
			unpaid = append(unpaid, *event.Usage)
		}
	}
	return unpaid, open
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

// end stops the work on a flight that nobody follows.
func (f *Flight) end() {
	f.stop(ErrDeserted)
	f.cache.forget(f)
	f.hasRoom()
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

func (f *Flight) hasRoom() {
	select {
	case f.room <- struct{}{}:
	default:
	}
}
