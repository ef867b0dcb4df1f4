package limit

import (
	"net/http"
	"time"

	fanout "rex/fanout-service"
)

const (
	// deadFor is how long a key that was refused is not used; then one call tries it.
	deadFor = 5 * time.Minute
	// forbiddenInARow is how many refusals for a model take the key from it. One is not believed: some
	// providers refuse a single prompt like that, and one user's must not stop all others.
	forbiddenInARow = 2
)

// says is what the end of an attempt says about a provider.
type says uint8

const (
	nothing says = iota // we ended it
	lives               // it answered, or refused for a reason of the call's, the key's or the pace
	faulty              // it failed
)

func (o *Outcome) says() says {
	if o.Failure == nil && !o.Neutral {
		return lives
	}
	if o.Neutral {
		return nothing
	}
	switch o.Failure.Kind {
	case fanout.TimeoutTotal, fanout.Deadline, fanout.StopUser, fanout.StopSuperseded, fanout.SlowReader,
		fanout.Internal, fanout.CircuitOpen, fanout.QueueFull:
		return nothing
	case fanout.TimeoutConnect, fanout.TimeoutFirstToken, fanout.TimeoutStall:
		if o.Failure.Blameless { // the client gave it less time than a judgement takes
			return nothing
		}
	default:
	}
	if o.Failure.ProviderFault() {
		return faulty
	}
	return lives
}

// refused says whether the key was refused, and whether for all models: a 403 is often about the
// model that was asked for, and one user's forbidden model must not take the key from everybody. Nor
// must an error behind a 200, which had let the key in.
func (o *Outcome) refused() (key, model bool) {
	if o.Neutral || o.Failure == nil || o.Failure.Kind != fanout.Auth {
		return false, false
	}
	model = o.Failure.Status == http.StatusForbidden || o.Failure.Status == 0
	return !model, model
}

// death is the state of a key the provider refused: it is left alone, then tried by one call at a
// time.
type death struct {
	enough   int // refusals in a row that are believed; below 1: the first is
	refusals int // in a row
	dead     bool
	until    time.Time
	probing  bool
}

// over is the moment from which a call may use the key; not after now when it may now. ok is false
// while nobody knows: a probe is on its way.
func (d *death) over() (at time.Time, ok bool) {
	if !d.dead {
		return time.Time{}, true
	}
	return d.until, !d.probing
}

// enter returns whether the call that now uses the key is its probe.
func (d *death) enter() bool {
	d.probing = d.dead
	return d.dead
}

// settle takes the end of a call.
func (d *death) settle(probe, refused bool, said says, now time.Time) {
	if probe {
		d.probing = false
	}
	switch {
	case refused:
		if d.refusals++; probe || d.refusals >= d.enough {
			d.dead, d.until = true, now.Add(deadFor)
		}
	case said == lives:
		d.refusals = 0
		d.dead = d.dead && !probe
	}
}
