package limit

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
)

func TestARefusedKeyIsLeftAloneAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		ask := askFor("a")
		ask.Keys = twoKeys
		p := admit(t, l, ask)
		dead := p.Key()
		p.Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}})
		for range 10 {
			p = admit(t, l, ask)
			if p.Key() == dead {
				t.Fatal("a refused key was used")
			}
			p.Done(Outcome{})
		}
		admit(t, l, ask).Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}})
		time.Sleep(time.Minute)
		if f := refused(t, l, ask); f.Kind != fanout.Auth || f.Fact != "no key is left" || f.RetryAfter != deadFor-time.Minute {
			t.Error(f, f.RetryAfter)
		}
		for _, s := range l.Targets() {
			if !s.Refused {
				t.Errorf("not told: %+v", s)
			}
		}
		time.Sleep(deadFor)
		probe, second := admit(t, l, ask), admit(t, l, ask)
		if probe.Key() == second.Key() {
			t.Error("two probes of one key")
		}
		if f := refused(t, l, ask); f.Kind != fanout.Auth || f.RetryAfter != probeRest {
			t.Error(f, f.RetryAfter)
		}
		probe.Done(Outcome{})
		for _, s := range l.Targets() {
			if s.Refused != (s.KeyID == second.Key().Handle()) {
				t.Errorf("%+v", s)
			}
		}
		for _, p := range []*Permit{admit(t, l, ask), admit(t, l, ask)} { // alive: no longer one at a time
			p.Done(Outcome{})
		}
		second.Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}})
		for range 10 {
			p = admit(t, l, ask)
			if p.Key() != probe.Key() {
				t.Fatal("a refused key was used")
			}
			p.Done(Outcome{})
		}
	})
}

func TestAProviderWithoutAKeyIsNotToldThatOneIsMissing(t *testing.T) {
	l := New(Config{}, nil, nil)
	ask := askFor("a")
	ask.Keys = []fanout.Key{fanout.NewKey("")}
	admit(t, l, ask).Done(Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusUnauthorized}})
	if f := refused(t, l, ask); f.Fact != "the provider refuses calls without a key" || f.RetryAfter <= 0 {
		t.Error(f, f.RetryAfter)
	}
}

func TestAForbiddenModelTakesTheKeyFromNobodyElse(t *testing.T) {
	l := New(Config{}, nil, nil)
	for range forbiddenInARow {
		admit(t, l, askFor("a")).Done(forbidden())
	}
	if f := refused(t, l, askFor("a")); f.Kind != fanout.Auth {
		t.Error(f)
	}
	other := askFor("b")
	other.Target.Model = "other"
	admit(t, l, other).Done(Outcome{})
}

func forbidden() Outcome {
	return Outcome{Failure: &fanout.Failure{Kind: fanout.Auth, Status: http.StatusForbidden}}
}

func TestAForbiddenPromptTakesTheModelFromNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{}, nil, nil)
		long := admit(t, l, askFor("long"))
		for range 5 {
			admit(t, l, askFor("a")).Done(forbidden())
			admit(t, l, askFor("another")).Done(Outcome{})
		}
		admit(t, l, askFor("a")).Done(forbidden())
		long.Alive() // an answer that begins says as much as one that is over
		admit(t, l, askFor("a")).Done(forbidden())
		admit(t, l, askFor("a")).Done(forbidden())
		if f := refused(t, l, askFor("another")); f.Kind != fanout.Auth {
			t.Error(f)
		}
		long.Done(Outcome{})
		time.Sleep(deadFor)
		admit(t, l, askFor("a")).Done(forbidden()) // it was tried again: now one suffices
		if f := refused(t, l, askFor("another")); f.Kind != fanout.Auth {
			t.Error(f)
		}
		time.Sleep(deadFor)
		admit(t, l, askFor("another")).Done(Outcome{})
		admit(t, l, askFor("a")).Done(forbidden())
		admit(t, l, askFor("another")).Done(Outcome{})
	})
}

func TestTheLeastLoadedKeyThatIsNotToldToWaitIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(fixed(3), nil, nil)
		ask := askFor("a")
		ask.Keys = twoKeys
		used := map[string][]*Permit{}
		for range 6 {
			p := admit(t, l, ask)
			used[p.Key().ID()] = append(used[p.Key().ID()], p)
		}
		first, second := used[twoKeys[0].ID()], used[twoKeys[1].ID()]
		if len(first) != 3 || len(second) != 3 {
			t.Fatalf("%d and %d", len(first), len(second))
		}
		for range 3 {
			second[0].Done(wish(time.Hour))
			second = second[1:]
		}
		first[0].Done(Outcome{})
		p := admit(t, l, ask)
		if p.Key() != twoKeys[0] {
			t.Error("a key was used that was told to wait")
		}
		served := make(chan string, 1)
		lineUp(t, l, ask, served, "next")
		queued := 0
		for _, s := range l.Targets() {
			queued += s.Queued
		}
		if queued != 1 || len(l.Targets()) != 2 {
			t.Errorf("%+v", l.Targets())
		}
		p.Done(Outcome{})
		if name := <-served; name != "next" {
			t.Error(name)
		}
		first[1].Done(Outcome{})
		first[2].Done(Outcome{})
		time.Sleep(2 * time.Second)
	})
}
