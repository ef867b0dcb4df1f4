package cache

import (
	"context"
	"errors"
	"fmt"
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

// end stops the work on a flight that nobody follows.
func (f *Flight) end() {
	f.stop(ErrDeserted)
	f.cache.forget(f)
	f.hasRoom()
}

func isText(t fanout.EventType) bool { return t == fanout.Chunk || t == fanout.Thought }

func (f *Flight) hasRoom() {
	select {
	case f.room <- struct{}{}:
	default:
	}
}
