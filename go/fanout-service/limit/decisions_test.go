package limit

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"
	"time"

	fanout "rex/fanout-service"
)

// dawn is the moment tests of decisions begin at.
var dawn = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return dawn.Add(time.Duration(seconds * float64(time.Second))) }

func TestComplaintsCutTheBoundAndCleanFinishesRaiseIt(t *testing.T) {
	steps := func(b *bound, what string, times int, seconds float64) {
		for range times {
			switch what {
			case "complain":
				b.complain(at(seconds))
			case "finish":
				b.finish()
			}
		}
	}
	cases := []struct {
		name  string
		bound bound
		do    func(b *bound)
		want  int
	}{
		{"a cut to seven tenths of what was in flight", bound{max: 20, adaptive: true, inUse: 10}, func(b *bound) { steps(b, "complain", 1, 0) }, 7},
		{"rounded down", bound{max: 20, adaptive: true, inUse: 9}, func(b *bound) { steps(b, "complain", 1, 0) }, 6},
		{"never below one", bound{max: 20, adaptive: true, inUse: 1}, func(b *bound) { steps(b, "complain", 1, 0) }, 1},
		{"once a second", bound{max: 20, adaptive: true, inUse: 10}, func(b *bound) { steps(b, "complain", 5, .9) }, 7},
		{"again a second later", bound{max: 20, adaptive: true, inUse: 10}, func(b *bound) {
			steps(b, "complain", 1, 0)
			b.inUse = 7
			steps(b, "complain", 1, 1)
		}, 4},
		{"a cut never raises", bound{max: 20, adaptive: true, inUse: 4}, func(b *bound) {
			steps(b, "complain", 1, 0)
			b.inUse = 10 // of an earlier time, still in flight
			steps(b, "complain", 1, 1)
		}, 2},
		{"not when static", bound{max: 20, inUse: 10}, func(b *bound) { steps(b, "complain", 1, 0) }, 20},
		{"unbounded until the first complaint", bound{adaptive: true, inUse: 10}, func(*bound) {}, 0},
		{"then bounded", bound{adaptive: true, inUse: 10}, func(b *bound) { steps(b, "complain", 1, 0) }, 7},
		{"as many clean finishes as places raise it by one", bound{max: 20, adaptive: true, inUse: 10}, func(b *bound) {
			steps(b, "complain", 1, 0)
			steps(b, "finish", 7, 0)
		}, 8},
		{"one fewer does not", bound{max: 20, adaptive: true, inUse: 10}, func(b *bound) {
			steps(b, "complain", 1, 0)
			steps(b, "finish", 6, 0)
		}, 7},
		{"a complaint starts the count anew", bound{max: 20, adaptive: true, inUse: 10}, func(b *bound) {
			steps(b, "complain", 1, 0)
			steps(b, "finish", 6, 0)
			steps(b, "complain", 1, 2)
			steps(b, "finish", 6, 0)
		}, 7},
		{"up to the maximum", bound{max: 12, adaptive: true, inUse: 10}, func(b *bound) {
			steps(b, "complain", 1, 0)
			steps(b, "finish", 1000, 0)
		}, 12},
		{"until it is no bound any more", bound{adaptive: true, inUse: 10}, func(b *bound) {
			steps(b, "complain", 1, 0)
			steps(b, "finish", 1000, 0)
		}, 0},
		{"but not while it is felt", bound{adaptive: true, inUse: 1}, func(b *bound) {
			steps(b, "complain", 1, 0)
			for range 100 {
				b.inUse = b.limit // somebody waits for every place
				steps(b, "finish", b.limit, 0)
			}
		}, 101},
		{"finishes raise nothing that was not cut", bound{max: 12, adaptive: true}, func(b *bound) { steps(b, "finish", 100, 0) }, 12},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.do(&c.bound)
			if got := c.bound.places(); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestOnlyComplaintsOfCrowdingCutTheBound(t *testing.T) {
	crowded := &fanout.Failure{Kind: fanout.RateLimited, Crowded: true, RetryAfter: time.Second, Status: 429}
	cases := []struct {
		name       string
		outcome    Outcome
		key, model int // of 10 in flight
	}{
		{"overloaded", failed(fanout.Overloaded), 10, 7},
		{"a 429 about calls at once", Outcome{Failure: crowded}, 7, 10},
		{"a 429 that names no time", failed(fanout.RateLimited), 10, 7},
		{"a 429 that names a time", wish(time.Second), 10, 10},
		{"server error", failed(fanout.ServerError), 10, 10},
		{"stall", failed(fanout.TimeoutStall), 10, 10},
		{"bad request", failed(fanout.InvalidRequest), 10, 10},
		{"cancelled", failed(fanout.StopUser), 10, 10},
		{"cancelled by us while overloaded", Outcome{Neutral: true, Failure: fanout.Fail(fanout.Overloaded, "")}, 10, 10},
		{"finished", Outcome{}, 10, 10},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := New(Config{Rules: []Rule{{Provider: "p", MaxConcurrent: 10}, {Provider: "p", Model: "m", MaxConcurrent: 10}}}, nil, nil)
			var permits []*Permit
			for range 10 {
				permits = append(permits, admit(t, l, askFor("a")))
			}
			permits[0].Done(c.outcome)
			line := permits[0].line
			if key, model := line.account.bound.places(), line.bound.places(); key != c.key || model != c.model {
				t.Errorf("key %d, model %d; want %d, %d", key, model, c.key, c.model)
			}
			for _, p := range permits[1:] {
				p.Done(Outcome{Neutral: true})
			}
		})
	}
}

// allKinds are those of the contract.
func allKinds(t *testing.T) (kinds []fanout.Kind) {
	t.Helper()
	var file struct{ Kinds []struct{ Kind fanout.Kind } }
	text, err := os.ReadFile("../api/kinds.json")
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil || len(file.Kinds) == 0 {
		t.Fatal("no kinds: ", err)
	}
	for _, row := range file.Kinds {
		kinds = append(kinds, row.Kind)
	}
	return kinds
}

func TestWhatAnOutcomeSaysAboutTheProvider(t *testing.T) {
	faults := map[fanout.Kind]bool{
		fanout.Overloaded: true, fanout.ServerError: true, fanout.Connection: true, fanout.TimeoutConnect: true,
		fanout.TimeoutFirstToken: true, fanout.TimeoutStall: true, fanout.BadUpstreamResponse: true, fanout.Incomplete: true,
	}
	living := map[fanout.Kind]bool{
		fanout.RateLimited: true, fanout.InvalidRequest: true, fanout.Auth: true, fanout.ContextTooLong: true,
		fanout.ContentFilter: true, fanout.ResponseTooLarge: true,
	}
	for _, kind := range allKinds(t) {
		want := nothing
		if faults[kind] {
			want = faulty
		} else if living[kind] {
			want = lives
		}
		o := failed(kind)
		if got := o.says(); got != want {
			t.Errorf("%s: %d, want %d", kind, got, want)
		}
		o.Neutral = true
		if o.says() != nothing {
			t.Errorf("%s, ended by us: says something", kind)
		}
	}
	if o := (Outcome{}); o.says() != lives {
		t.Error("an answer says nothing")
	}
}

func TestWhatAClientAskedForIsNoFaultOfTheProvider(t *testing.T) {
	for kind, want := range map[fanout.Kind]says{
		fanout.TimeoutConnect: nothing, fanout.TimeoutFirstToken: nothing, fanout.TimeoutStall: nothing, // too short to judge by
		fanout.BadUpstreamResponse: lives, // empty, because it was to have no more tokens
	} {
		o := failed(kind)
		if o.says() != faulty {
			t.Errorf("%s: no fault", kind)
		}
		o.Failure.Blameless = true
		if got := o.says(); got != want {
			t.Errorf("%s, asked for: %d, want %d", kind, got, want)
		}
	}
}

func TestAForbiddenModelIsNotARefusedKey(t *testing.T) {
	for status, want := range map[int][2]bool{
		http.StatusUnauthorized: {true, false}, http.StatusPaymentRequired: {true, false},
		http.StatusForbidden: {false, true}, 0: {false, true}, // 0: behind a 200
	} {
		o := Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: status}}
		if key, model := o.refused(); key != want[0] || model != want[1] {
			t.Errorf("%d: %v, %v", status, key, model)
		}
	}
}

func TestAGateLetsOneThroughThenMore(t *testing.T) {
	passes := func(g *gate, now time.Time) (n int) {
		for !g.opens(now).After(now) && n < 5000 {
			g.enter(now)
			n++
		}
		return n
	}
	var g gate
	if passes(&g, dawn) != 5000 {
		t.Error("a gate nobody shut keeps calls back")
	}
	g.shut(2*time.Second, dawn)
	g.shut(time.Second, dawn) // an earlier moment does not hold
	if passes(&g, at(1.999)) != 0 {
		t.Error("passed a shut gate")
	}
	now := g.notBefore
	if late := now.Sub(at(2)); late < 0 || late > 200*time.Millisecond {
		t.Errorf("opens %v late", late)
	}
	if n := passes(&g, now); n != 1 {
		t.Errorf("%d passed at once", n)
	}
	if n := passes(&g, now.Add(trialPatience-time.Millisecond)); n != 0 {
		t.Errorf("%d passed before word of the first", n)
	}
	g.settle(g.trial+1, true, now)
	g.heard(g.trial+1, now)
	if n := passes(&g, now); n != 0 {
		t.Error("word of another call opened the gate")
	}
	g.settle(g.trial, true, now)
	total := 1
	for _, want := range []int{2, 3, 5, 9} {
		total += passes(&g, now)
		if total != want {
			t.Errorf("%d passed, want %d", total, want)
		}
		now = now.Add(rampStep)
	}
	if n := passes(&g, now.Add(rampFor)); n != 5000 {
		t.Errorf("%d passed long after the gate opened", n)
	}
}

func TestAGateWhoseTrialEndsWithoutAWordLetsAnotherTry(t *testing.T) {
	var g gate
	g.shut(time.Second, dawn)
	now := g.notBefore
	first := g.enter(now)
	g.settle(first, false, now)
	if g.opens(now).After(now) {
		t.Fatal("nobody may try")
	}
	second := g.enter(now)
	if second == 0 || second == first || !g.opens(now).After(now) {
		t.Error("no second trial")
	}
	g.heard(second, now)
	if g.opens(now).Sub(now) > 2*refusalWithin {
		t.Error("headers do not hurry the others")
	}
	g.shut(time.Hour, now)
	if wish := g.wish(now); wish.Sub(now) < time.Hour {
		t.Errorf("the trial's refusal did not shut the gate: %v", wish)
	}
	g.shut(1000*time.Hour, now)
	if g.wish(now).Sub(now) > 25*time.Hour {
		t.Error("a wish of 1000 hours is heeded")
	}
}

func TestABucketRefillsEvenly(t *testing.T) {
	b := perMinute(60, dawn)
	b.take(60)
	if wait := b.holds(1, dawn).Sub(dawn); wait < time.Second || wait > 1010*time.Millisecond {
		t.Errorf("the next in %v", wait)
	}
	if b.holds(10, at(10)).After(at(10)) {
		t.Error("not refilled")
	}
	if !b.holds(11, at(10)).After(at(10)) {
		t.Error("refilled too much")
	}
	if wait := b.holds(1000, at(30)); wait.Before(at(59)) {
		t.Error("a call larger than the bucket did not wait for a full one")
	}
	if b.holds(1000, at(61)).After(at(61)) {
		t.Error("a call larger than the bucket waits for ever")
	}
	none := perMinute(0, dawn)
	none.take(1e9)
	if none.holds(1e9, dawn).After(dawn) {
		t.Error("no rule, and yet a bound")
	}
}

func TestABucketLearnsFromHeaders(t *testing.T) {
	cases := []struct {
		name string
		news fanout.Bucket
		want time.Duration // until it holds 10
	}{
		{"nothing told", fanout.Bucket{}, 0},
		{"unknown", fanout.Bucket{Limit: 100, Remaining: fanout.Unknown, Reset: time.Second}, 0},
		{"enough", fanout.Bucket{Limit: 100, Remaining: 10, Reset: time.Minute}, 0},
		{"half of what it takes", fanout.Bucket{Limit: 105, Remaining: 5, Reset: 10 * time.Second}, 500 * time.Millisecond},
		{"no limit told: at the reset", fanout.Bucket{Limit: fanout.Unknown, Remaining: 5, Reset: 10 * time.Second}, 10 * time.Second},
		{"no reset told: per minute", fanout.Bucket{Limit: 60, Remaining: 5}, 5 * time.Minute / 55},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var b bucket
			b.learn(c.news, dawn)
			wait := max(0, b.holds(10, dawn).Sub(dawn))
			if wait < c.want || wait > c.want+10*time.Millisecond {
				t.Errorf("%v, want %v", wait, c.want)
			}
		})
	}
	t.Run("calls on their way count", func(t *testing.T) {
		var b bucket
		for range 4 {
			b.take(10) // unknown yet, but on its way
		}
		b.seen(10)
		b.learn(fanout.Bucket{Limit: 100, Remaining: 35, Reset: time.Minute}, dawn)
		if b.level != 5 {
			t.Errorf("%v left, want 35 less 30 on their way", b.level)
		}
	})
	t.Run("forgotten after its time", func(t *testing.T) {
		var b bucket
		b.learn(fanout.Bucket{Limit: fanout.Unknown, Remaining: 1, Reset: time.Second}, dawn)
		b.take(1)
		if b.holds(1, at(1)).After(at(1)) {
			t.Error("still empty")
		}
	})
}
