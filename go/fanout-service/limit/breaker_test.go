package limit

import (
	"testing"
	"time"
)

// end lets a call through and ends it.
func (b *breaker) end(fault bool, now time.Time) {
	p := b.enter()
	b.record(&p, fault, now)
}

// send sends calls as far as the breaker lets them, and ends each at once.
func send(b *breaker, fault bool, times int, seconds float64) {
	for range times {
		if b.rest(at(seconds)) == 0 {
			b.end(fault, at(seconds))
		}
	}
}

// speak lets calls through whose answers begin.
func speak(b *breaker, times int, seconds float64) (passes []*pass) {
	for range times {
		p := b.enter()
		b.speak(&p, at(seconds))
		b.speak(&p, at(seconds)) // says nothing more
		passes = append(passes, &p)
	}
	return passes
}

// breakOff sends calls one after the other that fail in the middle of their answers.
func breakOff(b *breaker, times int) {
	for i := range times {
		b.record(speak(b, 1, float64(20*i))[0], true, at(float64(20*i+10)))
	}
}

func TestTheBreakerOpensOnFaultsAndClosesWithAProbe(t *testing.T) {
	cases := []struct {
		name string
		do   func(b *breaker)
		want breakerState
	}{
		{"four in a row", func(b *breaker) { send(b, true, 4, 0) }, closed},
		{"five in a row", func(b *breaker) { send(b, true, 5, 0) }, open},
		{"five with a success between", func(b *breaker) { send(b, true, 4, 0); send(b, false, 1, 0); send(b, true, 4, 0) }, closed},
		{"half of nineteen", func(b *breaker) {
			for range 9 {
				send(b, true, 1, 0)
				send(b, false, 1, 0)
			}
			send(b, true, 1, 0)
		}, closed},
		{"half of twenty", func(b *breaker) {
			for range 10 {
				send(b, false, 1, 0)
				send(b, true, 1, 0)
			}
		}, open},
		{"half of twenty within ten seconds", func(b *breaker) {
			for i := range 10 {
				send(b, false, 1, float64(i))
				send(b, true, 1, float64(i))
			}
		}, open},
		{"half of more, slowly", func(b *breaker) {
			for i := range 30 {
				send(b, false, 1, 3*float64(i))
				send(b, true, 1, 3*float64(i))
			}
		}, closed},
		{"five beside forty answers that are coming in", func(b *breaker) { speak(b, 40, 0); send(b, true, 5, 30) }, open},
		{"nineteen beside two hundred", func(b *breaker) { speak(b, 200, 0); send(b, true, 19, 30) }, closed},
		{"twenty beside two hundred", func(b *breaker) { speak(b, 200, 0); send(b, true, 20, 30) }, open},
		{"many among more that are coming in", func(b *breaker) {
			speak(b, 2000, 0)
			for range 99 {
				send(b, true, 10, 30)
				send(b, false, 1, 30)
			}
		}, closed},
		{"beside two hundred that have come to an end", func(b *breaker) {
			for _, p := range speak(b, 200, 0) {
				b.record(p, false, at(20))
			}
			send(b, true, 5, 30)
		}, open},
		{"beside two hundred that were cancelled", func(b *breaker) {
			for _, p := range speak(b, 200, 0) {
				b.abandon(p)
			}
			send(b, true, 5, 30)
		}, open},
		{"five that break off one after the other", func(b *breaker) { breakOff(b, 5) }, open},
		{"four", func(b *breaker) { breakOff(b, 4) }, closed},
		{"five of many that break off together", func(b *breaker) {
			for _, p := range speak(b, 40, 0)[:5] {
				b.record(p, true, at(30))
			}
		}, open},
		{"a row that another answer ended", func(b *breaker) {
			send(b, true, 4, 0)
			p := speak(b, 2, 0)
			b.record(p[0], true, at(1))
		}, closed},
		{"an end tells nothing new", func(b *breaker) {
			p := speak(b, 1, 0)
			send(b, true, 4, 1)
			b.record(p[0], false, at(2))
			send(b, true, 1, 3)
		}, open},
		{"a third break off", func(b *breaker) {
			for range 30 {
				p := speak(b, 3, 0)
				b.record(p[0], true, at(1))
				b.record(p[1], false, at(1))
				b.record(p[2], false, at(1))
			}
		}, closed},
		{"half break off", func(b *breaker) {
			for range 10 {
				p := speak(b, 2, 0)
				b.record(p[0], true, at(1))
				b.record(p[1], false, at(1))
			}
		}, open},
		{"a probe that speaks", func(b *breaker) { send(b, true, 5, 0); speak(b, 1, 11) }, closed},
		{"a probe that speaks, then breaks off", func(b *breaker) { send(b, true, 5, 0); b.record(speak(b, 1, 11)[0], true, at(12)) }, open},
		{"a probe that breaks off after others spoke", func(b *breaker) {
			send(b, true, 5, 0)
			probe := speak(b, 1, 11)[0]
			speak(b, 1, 11)
			b.record(probe, true, at(12))
		}, closed},
		{"a probe that succeeds", func(b *breaker) { send(b, true, 5, 0); send(b, false, 1, 11) }, closed},
		{"a probe that fails", func(b *breaker) { send(b, true, 5, 0); send(b, true, 1, 11) }, open},
		{"too early for a probe", func(b *breaker) { send(b, true, 5, 0); send(b, false, 1, 9.9) }, open},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var b breaker
			c.do(&b)
			if b.state != c.want {
				t.Errorf("%s, want %s", b.state, c.want)
			}
		})
	}
}

func TestAnOpenBreakerStaysOpenLongerEachTimeUpToAMinute(t *testing.T) {
	var b breaker
	now := dawn
	for range faultsInARow {
		b.end(true, now)
	}
	for _, want := range []time.Duration{10, 20, 40, 60, 60} {
		want *= time.Second
		if rest := b.rest(now); rest < want || rest > want+want/10 {
			t.Errorf("open for %v, want %v and a tenth at most", rest, want)
		}
		now = now.Add(b.rest(now))
		if b.rest(now) != 0 {
			t.Fatal("no probe")
		}
		probe := b.enter()
		if b.rest(now) == 0 {
			t.Fatal("two probes")
		}
		b.abandon(&probe) // the probe was cancelled: the next call is one
		if b.rest(now) != 0 {
			t.Fatal("no second probe after one that ended without result")
		}
		b.end(true, now)
	}
}

func TestLateResultsOfAnEarlierStateDoNotCount(t *testing.T) {
	var b breaker
	early := b.enter()
	for range faultsInARow {
		b.end(true, dawn)
	}
	b.record(&early, false, dawn)
	if b.state != open {
		t.Error("a late success closed it")
	}
	now := dawn.Add(b.rest(dawn))
	probe := b.enter()
	b.record(&early, true, now)
	b.abandon(&early)
	if b.state != halfOpen || !b.probing {
		t.Error("a late result ended the probe")
	}
	b.record(&probe, false, now)
	if b.state != closed {
		t.Error("the probe's success did not close it")
	}
	for range 2 * faultsInARow {
		b.record(&probe, true, now)
	}
	if b.state != closed {
		t.Error("late faults opened it")
	}
}
