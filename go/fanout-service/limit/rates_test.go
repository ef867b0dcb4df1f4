package limit

import (
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
)

func TestWhatIsNotSentAfterAllCostsNothing(t *testing.T) {
	for name, giveBack := range map[string]func(*Permit){
		"unsent":    (*Permit).Unsent,
		"twice":     func(p *Permit) { p.Unsent(); p.Unsent(); p.Done(Outcome{}) },
		"cancelled": func(p *Permit) { p.Done(Outcome{Neutral: true}) }, // it was sent: who knows how far it came
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(Config{Default: Rule{MaxConcurrent: 1, RequestsPerMinute: 2, TokensPerMinute: 200}}, nil, nil)
				ask := askFor("a")
				ask.Tokens = 100
				admit(t, l, ask).Done(Outcome{})
				giveBack(admit(t, l, ask))
				begun := time.Now()
				admit(t, l, ask).Done(Outcome{})
				if waited := time.Since(begun) > 0; waited != (name == "cancelled") {
					t.Errorf("waited %v", time.Since(begun))
				}
				if s := state(t, l); s.InFlight != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestRatesSpreadCallsAndTokensAreCorrected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{Default: Rule{RequestsPerMinute: 10}}, nil, nil)
		begun := time.Now()
		for range 20 {
			admit(t, l, askFor("a")).Done(Outcome{})
		}
		if took := time.Since(begun); took < 59*time.Second || took > 61*time.Second {
			t.Errorf("10 and 10 more took %v, want a minute", took)
		}

		l = New(Config{Default: Rule{TokensPerMinute: 6000}}, nil, nil)
		ask := askFor("a")
		ask.Tokens = 6000
		begun = time.Now()
		p := admit(t, l, ask)
		ask.Deadline = time.Now().Add(10 * time.Second)
		if f := refused(t, l, ask); f.Kind != fanout.RateLimited || f.RetryAfter < 59*time.Second {
			t.Error(f)
		}
		p.Done(Outcome{Tokens: 1000}) // far fewer than estimated: 5000 are left
		ask.Deadline = time.Time{}
		admit(t, l, ask).Done(Outcome{Failure: &fanout.Failure{Kind: fanout.InvalidRequest, Status: 400}})
		if took := time.Since(begun); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("%v, want the 10 s in which 1000 tokens come", took)
		}
		admit(t, l, ask).Done(Outcome{}) // the refused call cost nothing
		if took := time.Since(begun); took > 11*time.Second {
			t.Errorf("%v", took)
		}
	})
}
