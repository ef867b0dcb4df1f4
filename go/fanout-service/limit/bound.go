package limit

import "time"

// cutEvery is the shortest time between two cuts: the calls that were in flight together complain
// together, and are one complaint.
const cutEvery = time.Second

// bound holds the calls at once in one scope, a key or a model with a key, under the operator's
// maximum. An adaptive one goes below it while the provider complains: it is cut by a factor at a
// complaint and grows by one with as many clean finishes as it has places (additive increase,
// multiplicative decrease: Chiu and Jain, "Analysis of the increase and decrease algorithms for
// congestion avoidance in computer networks", 1989). How long calls take says nothing: that
// follows the length of the answers.
type bound struct {
	max      int // the operator's; 0: none
	adaptive bool
	inUse    int

	limit   int // learned; 0: nothing learned, or unlearned again
	unlearn int // the limit above which a scope without a maximum may be unbounded again
	clean   int // finishes since the limit last moved
	cutAt   time.Time

	shared refusal
}

// refusal is the state of a scope that Redis gave no slot of: one call at a time asks again, after a
// while or when this process gave one back.
type refusal struct {
	active bool
	asking bool
	until  time.Time
}

func (r *refusal) refuse(now time.Time) {
	r.active, r.until = true, now.Add(askAgain+jitter(askAgainSpread))
}

// granted says that a slot was given; last, that nobody else waits for one.
func (r *refusal) granted(asked, last bool) {
	if asked {
		r.asking, r.active = false, !last
	}
}

// places is the number of calls that may be in flight now, 0 for any number.
func (b *bound) places() int {
	if b.limit > 0 && (b.max == 0 || b.limit < b.max) {
		return b.limit
	}
	return b.max
}

func (b *bound) full() bool {
	places := b.places()
	return b.shared.asking || places > 0 && b.inUse >= places
}

// enter counts a call in, and returns whether it is the one that asks Redis again.
func (b *bound) enter() bool {
	b.inUse++
	b.shared.asking = b.shared.active
	return b.shared.asking
}

// leave counts a call out; asked is what enter returned.
func (b *bound) leave(asked bool, now time.Time) {
	b.inUse--
	if asked {
		b.shared.asking = false
	}
	b.shared.until = earlier(b.shared.until, now)
}

// complain lowers the limit; the call that brought the complaint still counts as in flight.
func (b *bound) complain(now time.Time) {
	if !b.adaptive || !b.cutAt.IsZero() && now.Sub(b.cutAt) < cutEvery {
		return
	}
	cut := max(1, b.inUse*7/10)
	if places := b.places(); places == 0 || cut < places {
		b.limit = cut
	}
	b.unlearn, b.clean, b.cutAt = 2*b.inUse, 0, now
}

// finish counts a clean finish.
func (b *bound) finish() {
	if b.limit == 0 {
		return
	}
	b.clean++
	if b.clean < b.limit {
		return
	}
	b.clean = 0
	b.limit++
	// Without a maximum the limit is lifted once it is far from being felt: lifted under pressure,
	// it would let everybody go at once who waits for it.
	if b.max > 0 && b.limit >= b.max || b.max == 0 && b.limit > b.unlearn && 2*b.inUse <= b.limit {
		b.limit = 0
	}
}
