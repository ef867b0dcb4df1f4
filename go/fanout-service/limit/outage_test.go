package limit

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
)

func TestAnOpenBreakerAnswersAtOnceAndOneProbeGoesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		for range faultsInARow {
			admit(t, l, askFor("a")).Done(failed(fanout.ServerError))
		}
		begun := time.Now()
		f := refused(t, l, askFor("a"))
		if f.Kind != fanout.CircuitOpen || f.RetryAfter < openAtFirst || time.Since(begun) > 0 {
			t.Error(f, time.Since(begun))
		}
		if s := state(t, l); s.Breaker != "open" {
			t.Errorf("%+v", s)
		}
		other := askFor("a")
		other.Target.Model = "other"
		admit(t, l, other).Done(Outcome{})
		time.Sleep(f.RetryAfter)
		admit(t, l, askFor("a")).Done(Outcome{Neutral: true}) // a probe that was cancelled: another may go

		var probes, turnedAway atomic.Int64
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				p, err := l.Admit(t.Context(), askFor("a"))
				if err != nil {
					turnedAway.Add(1)
					return
				}
				probes.Add(1)
				if s := state(t, l); s.Breaker != "half_open" {
					t.Errorf("%+v", s)
				}
				time.Sleep(time.Second)
				p.Done(Outcome{})
			})
		}
		wg.Wait()
		if probes.Load() != 1 || turnedAway.Load() != 99 {
			t.Errorf("%d probes, %d turned away", probes.Load(), turnedAway.Load())
		}
		if s := state(t, l); s.Breaker != "closed" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhoWaitsForAModelThatFailsIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(fixed(5), nil, nil)
		var permits []*Permit
		for range 5 {
			permits = append(permits, admit(t, l, askFor("a")))
		}
		served := make(chan string, 1)
		ask := askFor("a")
		lineUp(t, l, ask, served, "m")
		other := askFor("a")
		other.Target.Model = "other"
		lineUp(t, l, other, served, "other")
		// Both wait for the key; the faults of m give five places back and open the breaker of m.
		for range faultsInARow - 1 {
			permits[0].line.breaker.end(true, time.Now())
		}
		permits[0].Done(failed(fanout.Connection))
		told := map[string]bool{<-served: true, <-served: true}
		if !told["other"] || len(told) != 2 || told["m"] {
			t.Error(told)
		}
		for _, p := range permits[1:] {
			p.Done(Outcome{})
		}
		time.Sleep(2 * time.Second)
	})
}

func TestAnImpatientWorkspaceOpensTheBreakerForNobody(t *testing.T) {
	impatient := failed(fanout.TimeoutFirstToken)
	impatient.Failure.Blameless = true
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		for range 2 * faultsInARow {
			admit(t, l, askFor("impatient")).Done(impatient)
		}
		admit(t, l, askFor("another")).Done(Outcome{})
		for range faultsInARow {
			admit(t, l, askFor("patient")).Done(failed(fanout.TimeoutFirstToken))
		}
		f := refused(t, l, askFor("another"))
		if f.Kind != fanout.CircuitOpen {
			t.Error(f)
		}
		time.Sleep(f.RetryAfter)
		admit(t, l, askFor("impatient")).Done(impatient) // as a probe it says as little
		if s := state(t, l); s.Breaker != "half_open" {
			t.Errorf("%+v", s)
		}
		admit(t, l, askFor("another")).Done(Outcome{})
	})
}

func TestFewFailuresBesideLongAnswersDoNotOpenTheBreaker(t *testing.T) {
	cases := []struct {
		name    string
		answers int // that have begun and go on
		failed  int // attempts that then cannot connect
		want    string
	}{
		{"few beside many", 1000, 17, "closed"},
		{"a tenth of them in a row", 1000, 100, "open"},
		{"beside none", 0, faultsInARow, "open"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{}, nil, nil)
				var answers, others []*Permit
				for range c.answers {
					answers = append(answers, admit(t, l, askFor("a")))
				}
				for range c.failed {
					others = append(others, admit(t, l, askFor("a")))
				}
				for _, p := range answers {
					p.Alive()
					p.Alive()
				}
				time.Sleep(time.Minute) // longer than the breaker counts
				for _, p := range others {
					p.Done(failed(fanout.TimeoutConnect))
				}
				if s := state(t, l); s.Breaker != c.want {
					t.Errorf("%s, want %s", s.Breaker, c.want)
				}
				for _, p := range answers {
					p.Done(Outcome{})
					p.Alive() // too late to say anything
				}
			})
		})
	}
}

func TestTheFirstWordOfAProbeLetsTheOthersFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		for range faultsInARow {
			admit(t, l, askFor("a")).Done(failed(fanout.Connection))
		}
		if f := refused(t, l, askFor("a")); f.Kind != fanout.CircuitOpen {
			t.Fatal(f)
		}
		time.Sleep(2 * openAtFirst)
		probe := admit(t, l, askFor("a"))
		if f := refused(t, l, askFor("a")); f.Kind != fanout.CircuitOpen {
			t.Fatal(f)
		}
		probe.Alive()
		admit(t, l, askFor("a")).Done(Outcome{})
		probe.Done(Outcome{})

		admit(t, l, askFor("a")).Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: 401}})
		if f := refused(t, l, askFor("a")); f.Kind != fanout.Auth {
			t.Fatal(f)
		}
		time.Sleep(deadFor)
		probe = admit(t, l, askFor("a"))
		probe.Alive() // the key works again
		admit(t, l, askFor("a")).Done(Outcome{})
		probe.Done(Outcome{})
	})
}
