package limit

import (
	"math/rand/v2"
	"time"
)

// When a breaker opens, and for how long.
const (
	faultsInARow  = 5
	windowBuckets = 10 // of a second each
	windowCalls   = 20 // fewer say nothing about a share
	openAtFirst   = 10 * time.Second
	openAtMost    = 60 * time.Second
	probeRest     = time.Second // to come back after, while the one probe is on its way
)

type breakerState uint8

const (
	closed breakerState = iota
	open
	halfOpen
)

func (s breakerState) String() string {
	return [...]string{"closed", "open", "half_open"}[s]
}

// breaker leaves a model alone that fails: after five faults in a row, or when half of at least
// twenty calls within ten seconds were faults. It then lets one probe through, and believes it.
//
// Every change of state begins a new generation. A result is told with the generation its call was
// admitted in, and counts in no other: what was sent before the breaker opened says nothing about
// the provider now.
type breaker struct {
	state      breakerState
	generation uint64
	faults     int // in a row
	window     [windowBuckets]tally
	openFor    time.Duration
	openUntil  time.Time
	probing    bool
}

// tally counts the results of one second.
type tally struct {
	second int64
	calls  int
	faults int
}

// rest is how long the breaker lets no call through, 0 when it does.
func (b *breaker) rest(now time.Time) time.Duration {
	switch {
	case b.state == open:
		return max(0, b.openUntil.Sub(now))
	case b.probing:
		return probeRest
	default:
		return 0
	}
}

// enter lets a call through that rest allowed, and returns its generation.
func (b *breaker) enter() uint64 {
	if b.state == open {
		b.turn(halfOpen)
	}
	b.probing = b.state == halfOpen
	return b.generation
}

// abandon takes back a call whose end says nothing.
func (b *breaker) abandon(generation uint64) {
	if generation == b.generation {
		b.probing = false
	}
}

// record takes the result of a call: whether the provider was at fault.
func (b *breaker) record(generation uint64, fault bool, now time.Time) {
	if generation != b.generation {
		return
	}
	switch {
	case b.state == halfOpen && fault:
		b.openFor = min(2*b.openFor, openAtMost)
		b.open(now)
	case b.state == halfOpen:
		b.turn(closed)
	default:
		b.count(fault, now)
		if b.tooMany(now) {
			b.openFor = openAtFirst
			b.open(now)
		}
	}
}

func (b *breaker) open(now time.Time) {
	b.turn(open)
	b.openUntil = now.Add(b.openFor + jitter(b.openFor/10))
}

func (b *breaker) turn(state breakerState) {
	b.state, b.probing, b.faults = state, false, 0
	b.window = [windowBuckets]tally{}
	b.generation++
}

func (b *breaker) count(fault bool, now time.Time) {
	second := now.Unix()
	t := &b.window[second%windowBuckets]
	if t.second != second {
		*t = tally{second: second}
	}
	t.calls++
	b.faults++
	if fault {
		t.faults++
	} else {
		b.faults = 0
	}
}

func (b *breaker) tooMany(now time.Time) bool {
	if b.faults >= faultsInARow {
		return true
	}
	calls, faults := 0, 0
	for _, t := range b.window {
		if now.Unix()-t.second < windowBuckets {
			calls += t.calls
			faults += t.faults
		}
	}
	return calls >= windowCalls && 2*faults >= calls
}

// jitter is a random time below most, so that processes that learned the same do not act at once.
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most) //nolint:gosec // spreads load, guards nothing
}
