package limit

import (
	"time"

	fanout "rex/fanout-service"
)

// bucket is a rate limit: it holds so much, refills evenly, and a call takes its part when it is
// admitted. Providers say that theirs work like this. The zero bucket knows nothing and bounds
// nothing.
type bucket struct {
	known     bool
	limit     float64 // what a full one holds; 0: unknown, then it does not refill before forget
	level     float64 // below 0 when calls took more than they had asked for
	perSecond float64
	at        time.Time // of level
	forget    time.Time // of a bucket without a limit: what was learned holds until then
	pending   float64   // taken by calls whose response has not been seen
}

// perMinute is a full bucket for a rule; 0 for one that bounds nothing.
func perMinute(rate int64, now time.Time) bucket {
	if rate <= 0 {
		return bucket{}
	}
	return bucket{known: true, limit: float64(rate), level: float64(rate), perSecond: float64(rate) / 60, at: now}
}

func (b *bucket) refill(now time.Time) {
	switch {
	case !b.known:
	case b.limit > 0:
		b.level = min(b.limit, b.level+b.perSecond*max(0, now.Sub(b.at).Seconds()))
	case !now.Before(b.forget):
		b.known = false
	}
	b.at = now
}

// holds is the moment at which the bucket holds n if nobody else takes any; not after now when it
// does now. A call that wants more than the bucket can hold goes when it is full.
func (b *bucket) holds(n float64, now time.Time) time.Time {
	b.refill(now)
	if !b.known {
		return time.Time{}
	}
	if b.limit == 0 {
		if n <= b.level {
			return time.Time{}
		}
		return b.forget
	}
	missing := min(n, b.limit) - b.level
	if missing < 1e-6 { // what rounding leaves would be waited for in vain
		return time.Time{}
	}
	wait := time.Duration(missing / b.perSecond * float64(time.Second))
	return now.Add(min(wait, waitAtMost) + time.Millisecond)
}

func (b *bucket) take(n float64) {
	b.level -= n
	b.pending += n
}

// seen says that the response to a call came that had taken n.
func (b *bucket) seen(n float64) { b.pending = max(0, b.pending-n) }

// learn takes what a provider's headers say. What calls have taken whose response has not been seen
// may or may not be in its figure; we count it twice rather than not at all.
func (b *bucket) learn(news fanout.Bucket, now time.Time) {
	if news.Remaining < 0 || news == (fanout.Bucket{}) {
		return
	}
	remaining, reset := float64(news.Remaining), min(news.Reset, waitAtMost)
	if reset <= 0 {
		reset = time.Minute
	}
	b.known, b.at, b.forget = true, now, now.Add(reset)
	b.level = remaining - b.pending
	b.limit, b.perSecond = 0, 0
	if news.Limit > 0 {
		b.limit = max(float64(news.Limit), remaining)
		b.perSecond = b.limit / 60
		if b.limit > remaining {
			b.perSecond = (b.limit - remaining) / reset.Seconds()
		}
	}
}

// rates are the buckets of one scope.
type rates struct{ requests, tokens bucket }

func (r *rates) holds(tokens float64, now time.Time) time.Time {
	if !r.requests.known && !r.tokens.known {
		return time.Time{}
	}
	return later(r.requests.holds(1, now), r.tokens.holds(tokens, now))
}

func (r *rates) take(tokens float64) {
	r.requests.take(1)
	r.tokens.take(tokens)
}

func (r *rates) seen(tokens float64) {
	r.requests.seen(1)
	r.tokens.seen(tokens)
}

func (r *rates) learn(news fanout.Allowance, now time.Time) {
	r.requests.learn(news.Requests, now)
	r.tokens.learn(news.Tokens, now)
}

// untake gives back what a call took that was never sent.
func (r *rates) untake(tokens float64) {
	r.seen(tokens)
	r.requests.level++
	r.tokens.level += tokens
}
