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
// Failures to connect are known at once, and the end of a long answer minutes later. So a call
// counts as answered from its first word, and answers that are coming in speak for the provider:
// a few calls that fail beside a thousand that are being answered do not open the breaker.
//
// Every change of state begins a new generation. A result is told with the generation its call was
// admitted in, and counts in no other: what was sent before the breaker opened says nothing about
// the provider now.
type breaker struct {
	state      breakerState
	generation uint64
	faults     int    // in a row
	answered   uint64 // calls, so that two moments can be compared
	speaking   int    // calls being answered now
	window     [windowBuckets]tally
	openFor    time.Duration
	openUntil  time.Time
	probing    bool
}

// pass is a call as the breaker let it through.
type pass struct {
	generation uint64
	// What its first word changed, to be taken back when it fails after all.
	spoke    bool
	second   int64
	row      int // of faults that it ended
	answered uint64
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

// enter lets a call through that rest allowed.
func (b *breaker) enter() pass {
	if b.state == open {
		b.turn(halfOpen)
	}
	b.probing = b.state == halfOpen
	return pass{generation: b.generation}
}

// speak takes the first word of an answer, which counts as a result.
func (b *breaker) speak(p *pass, now time.Time) {
	if p.spoke || p.generation != b.generation {
		return
	}
	p.spoke, p.row = true, b.faults
	if b.state == halfOpen {
		b.turn(closed)
		p.generation, p.row = b.generation, faultsInARow-1 // if the probe fails now, the breaker opens again
	}
	b.count(false, now)
	b.speaking++
	p.second, p.answered = now.Unix(), b.answered
}

// abandon takes back a call whose end says nothing.
func (b *breaker) abandon(p *pass) {
	if p.generation == b.generation {
		b.probing = false
		b.hush(p)
	}
}

// hush ends an answer.
func (b *breaker) hush(p *pass) {
	if p.spoke {
		b.speaking--
	}
}

// record takes the end of a call: whether the provider was at fault.
func (b *breaker) record(p *pass, fault bool, now time.Time) {
	if p.generation != b.generation {
		return
	}
	b.hush(p)
	switch {
	case b.state == halfOpen && fault:
		b.openFor = min(2*b.openFor, openAtMost)
		b.open(now)
	case b.state == halfOpen:
		b.turn(closed)
	case p.spoke && !fault: // known
	default:
		if p.spoke {
			b.unsay(p)
		}
		b.count(fault, now)
		if b.tooMany(now) {
			b.openFor = openAtFirst
			b.open(now)
		}
	}
}

// unsay takes a first word back: the call failed after it, and must count as one failure, not as
// an answer and a failure.
func (b *breaker) unsay(p *pass) {
	if t := &b.window[p.second%windowBuckets]; t.second == p.second {
		t.calls--
	}
	if p.answered == b.answered { // it alone ended the row
		b.faults += p.row
	}
}

func (b *breaker) open(now time.Time) {
	b.turn(open)
	b.openUntil = now.Add(b.openFor + jitter(b.openFor/10))
}

func (b *breaker) turn(state breakerState) {
	b.state, b.probing, b.faults, b.speaking = state, false, 0, 0
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
	if fault {
		t.faults++
		b.faults++
	} else {
		b.answered++
		b.faults = 0
	}
}

// tooMany judges by the faults in a row, and by their share. Answers that are coming in weigh in
// both: the row has to be as long as a tenth of them.
func (b *breaker) tooMany(now time.Time) bool {
	if b.faults >= max(faultsInARow, b.speaking/10) {
		return true
	}
	calls, faults := 0, 0
	for _, t := range b.window {
		if now.Unix()-t.second < windowBuckets {
			calls += t.calls
			faults += t.faults
		}
	}
	return calls >= windowCalls && 2*faults >= max(calls, b.speaking)
}

// jitter is a random time below most, so that processes that learned the same do not act at once.
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most) //nolint:gosec // spreads load, guards nothing
}
