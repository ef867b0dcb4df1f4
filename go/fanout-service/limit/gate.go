package limit

import (
	"math"
	"time"
)

const (
	// waitAtMost bounds what a provider may ask us to wait.
	waitAtMost = 24 * time.Hour
	// gateJitter is the most a gate opens late: processes that were told the same moment do not
	// come together. A short wait is lengthened by a tenth at most.
	gateJitter = 250 * time.Millisecond
	// trialPatience is how long the others wait for word of the first call through a gate.
	trialPatience = time.Second
	// refusalWithin is how long after its headers a refusal is told as such, at most.
	refusalWithin = 100 * time.Millisecond
	// rampStep is the time in which the calls let through a gate that has opened may double, and
	// rampFor how long they are counted: for the first thousand.
	rampStep = 100 * time.Millisecond
	rampFor  = 10 * rampStep
)

type gatePhase uint8

const (
	gateOpen  gatePhase = iota
	gateShut            // nothing may be sent before notBefore
	gateTrial           // one call was let through; the others wait for word of it
	gateRamp            // the second, then more and more
)

// gate is the moment a provider asked us to wait for, and how calls start again behind it: one
// first, then the others in growing number. Let all go at once and the provider refuses most, each
// with a new moment to wait for.
type gate struct {
	phase     gatePhase
	notBefore time.Time
	trial     uint64    // the number of the last trial: 1, 2…
	rampFrom  time.Time // the others follow from then on
	entered   int       // calls let through since the gate opened
}

// shut keeps calls back for a while from now. The latest of several wishes holds.
func (g *gate) shut(wait time.Duration, now time.Time) {
	wait = min(wait, waitAtMost)
	until := now.Add(wait + jitter(min(wait/10, gateJitter)))
	if until.After(g.notBefore) {
		g.phase, g.notBefore = gateShut, until
	}
}

// opens is the moment from which a call may try to pass; not after now when it may pass now.
func (g *gate) opens(now time.Time) time.Time {
	switch g.phase {
	case gateShut:
		return g.notBefore
	case gateTrial:
		return g.rampFrom
	case gateRamp:
		if now.Sub(g.rampFrom) < rampFor {
			return g.rampFrom.Add(time.Duration(math.Log2(float64(g.entered)) * float64(rampStep)))
		}
	case gateOpen:
	}
	return time.Time{}
}

// enter lets a call pass that opens allowed. The result is the trial's number when the call is
// one, else 0.
func (g *gate) enter(now time.Time) uint64 {
	switch g.phase {
	case gateShut:
		g.phase, g.entered, g.rampFrom = gateTrial, 1, now.Add(trialPatience)
		g.trial++
		return g.trial
	case gateTrial:
		g.phase = gateRamp
		g.entered++
	case gateRamp:
		g.entered++
		if now.Sub(g.rampFrom) >= rampFor {
			g.phase = gateOpen
		}
	case gateOpen:
	}
	return 0
}

// heard says that the trial's headers came. They may be those of a refusal, which is told soon.
func (g *gate) heard(trial uint64, now time.Time) {
	if g.isTrial(trial) {
		g.rampFrom = earlier(g.rampFrom, now.Add(refusalWithin+jitter(refusalWithin)))
	}
}

// settle says that the trial is over without a new wish; told is whether the provider had a say.
// If not, the next call is the trial.
func (g *gate) settle(trial uint64, told bool, now time.Time) {
	switch {
	case !g.isTrial(trial):
	case told:
		g.rampFrom = earlier(g.rampFrom, now)
	default:
		g.phase = gateShut
	}
}

func (g *gate) isTrial(trial uint64) bool {
	return trial != 0 && g.phase == gateTrial && g.trial == trial
}

// wish is the moment before which nothing is sent, zero when there is none.
func (g *gate) wish(now time.Time) time.Time {
	if g.phase == gateShut && g.notBefore.After(now) {
		return g.notBefore
	}
	return time.Time{}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
