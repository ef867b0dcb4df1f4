package engine

import (
	"context"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
)

// follow answers the call from a flight, and leaves it when the call ends first.
func (c *call) follow(ctx context.Context, record *CallRecord) fanout.Event {
	run := c.owner
	run.engine.works.Add(1)
	run.users.Add(1)
	follower := run.engine.cache.Join(ctx, run.request.Workspace, c.spec.Cache.Key, run.deadline(),
		func(ctx context.Context, flight *cache.Flight) {
			defer run.engine.works.Done()
			defer run.leave()
			run.lead(ctx, c.spec, flight)
		})
	defer follower.Leave()
	if !follower.Leads() {
		run.leave()
		run.engine.works.Done()
	}
	reader := &reader{
		call: c, leads: follower.Leads(), joined: run.since(), shift: run.received.Sub(run.engine.epoch),
		timing: fanout.NoTiming, record: record,
	}
	reader.timing.Queued = reader.joined
	record.Cache = CacheMiss
	if !reader.leads {
		record.Cache = CacheShared
	}
	for events := []fanout.Event(nil); ; {
		var err error
		events, err = follower.Next(c.ctx, events[:0])
		reader.lead(follower.Leads())
		for i := range events {
			if err == nil {
				err = reader.read(&events[i])
			} else {
				reader.miss(&events[i], reader.leads)
			}
		}
		if err != nil {
			return reader.cut(err, follower)
		}
		if last := &events[len(events)-1]; last.Type == fanout.Finished || last.Type == fanout.Failed {
			return *last
		}
	}
}

// reader shows one call what happens in the flight that it follows. The call that started the
// flight sees its attempts; they are the others' neither to pay nor to count, so to them it is a
// replay of an answer that is not complete yet. When that call ends first, another takes the attempts
// over: its replay goes on, and becomes an answer of its own.
type reader struct {
	call   *call
	leads  bool
	joined time.Duration
	shift  time.Duration // from the engine's epoch to the receipt of the call's request
	record *CallRecord

	began      bool
	said       bool
	open       int // attempts of the flight that are under way, whoever's they are
	newest     int // the number of the last that began
	attempt    int // the newest that is this call's; 0: none is
	timing     fanout.Timing
	characters int
	missed     *fanout.Usage // of attempts whose end the call is not told; nil: none cost anything
}

// lead takes the attempts over, when that is so.
func (r *reader) lead(leads bool) {
	if leads && !r.leads {
		r.leads, r.attempt = true, r.newest
	}
}

// read passes an event on to the call; the last one it only rewrites.
func (r *reader) read(event *fanout.Event) error {
	event.At = r.moment(event.At)
	event.Timing = fanout.Timing{
		Queued: r.moment(event.Timing.Queued), Admitted: r.moment(event.Timing.Admitted),
		Connect:    r.moment(event.Timing.Connect),
		FirstToken: r.moment(event.Timing.FirstToken), LastToken: r.moment(event.Timing.LastToken),
	}
	switch event.Type {
	case fanout.Queued:
		r.call.tell(event)
	case fanout.Started:
		r.start(event)
	case fanout.Thought:
		if r.call.spec.Thoughts { // who shares may not have asked for what the first one did
			return r.say(event)
		}
	case fanout.Chunk:
		return r.say(event)
	case fanout.AttemptFailed:
		r.close()
		if r.leads {
			r.call.tell(event)
		}
	case fanout.Finished:
		if event.CachedAge != fanout.Never {
			r.record.Cache, r.record.Age = CacheHit, event.CachedAge
		} else if !r.leads {
			event.Attempt, event.CachedAge = 0, 0
		}
	case fanout.Failed:
		if !r.leads {
			event.Attempt, event.Usage = 0, nil
		}
	}
	return nil
}

func (r *reader) start(event *fanout.Event) {
	r.record.Target = event.Target
	r.begin(event)
	r.timing = event.Timing
	if r.said {
		r.call.startOver()
	}
	switch {
	case r.leads:
		r.attempt, r.record.Attempts = event.Attempt, event.Attempt
	case r.began && !r.said:
		return // nothing was shown of the attempt before
	default:
		event.Attempt, event.Reason = 0, fanout.Replay
	}
	r.began, r.said = true, false
	r.call.tell(event)
}

func (r *reader) begin(event *fanout.Event) {
	if r.characters = 0; event.Attempt > 0 {
		r.open++
		r.newest = event.Attempt
	}
}

// close counts an attempt out that failed.
func (r *reader) close() {
	if r.open--; r.open == 0 {
		r.characters = 0
	}
}

func (r *reader) say(event *fanout.Event) error {
	urgent := false
	if event.Type == fanout.Chunk {
		urgent = r.timing.FirstToken == fanout.Never
		if urgent {
			r.timing = event.Timing
			r.timing.FirstToken = event.At
		}
		r.timing.LastToken = event.At
		r.characters += codePoints(event.Text)
	}
	r.said = true
	for !r.call.offer(event, urgent) {
		if err := r.call.room(r.call.ctx); err != nil {
			return err
		}
	}
	return nil
}

// miss takes note of an event that the call is not told any more: also what it is not told is paid
// for, if the attempts are its own.
func (r *reader) miss(event *fanout.Event, own bool) {
	switch event.Type {
	case fanout.Started:
		r.begin(event)
	case fanout.Chunk:
		r.characters += codePoints(event.Text)
	case fanout.AttemptFailed:
		r.close()
	case fanout.Finished, fanout.Failed:
		r.open = 0
	default:
	}
	replayed := event.Type == fanout.Finished && event.CachedAge != fanout.Never
	if own && event.Usage != nil && !replayed {
		r.pay(*event.Usage)
	}
}

func (r *reader) pay(usage fanout.Usage) {
	if r.missed != nil {
		usage = r.missed.Plus(usage)
	}
	r.missed = &usage
}

// cut is the last event of a call that ends before the flight. It costs what nobody else will be told
// of: not the attempt under way, if another call takes that over.
func (r *reader) cut(err error, follower *cache.Follower) fanout.Event {
	unread := follower.HandOver()
	for i := range unread.Events {
		r.miss(&unread.Events[i], i >= unread.Own)
	}
	if unread.Last && r.open > 0 {
		r.pay(fanout.Usage{
			InputTokens: int64(r.open) * estimate(r.call.spec.Characters()), OutputTokens: estimate(r.characters), Estimated: true,
		})
	}
	return fanout.Event{
		Type: fanout.Failed, At: r.call.owner.since(), Attempt: r.attempt, Failure: asFailure(err), Timing: r.timing,
		Usage: r.missed,
	}
}

// moment turns one of the flight's into one of the call's, which cannot be before it joined.
func (r *reader) moment(at time.Duration) time.Duration {
	if at == fanout.Never {
		return at
	}
	return max(at-r.shift, r.joined)
}
