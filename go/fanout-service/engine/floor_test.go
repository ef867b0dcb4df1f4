package engine

import (
	"context"
	"testing"
	"time"

	fanout "rex/fanout-service"
)

// silent listens to nothing, and counts what it is told.
type silent struct{ told int }

func (s *silent) tell(*fanout.Event)             { s.told++ }
func (s *silent) offer(*fanout.Event, bool) bool { return true }
func (s *silent) room(context.Context) error     { return nil }
func (s *silent) startOver()                     {}

// A hedge is admitted in the very moment in which the first attempt speaks or ends: too short a
// moment to be met from outside.
func TestNoHedgeBeginsBehindTextOrTheEndOfTheFirst(t *testing.T) {
	target := fanout.Target{Provider: "p", Model: "m"}
	for name, happens := range map[string]func(r *race){
		"nothing": func(*race) {},
		"text":    func(r *race) { r.claim(r.first) },
		"the end": func(r *race) { r.over(r.first) },
	} {
		t.Run(name, func(t *testing.T) {
			e := New(Config{}, Parts{Upstreams: map[string]Upstream{"p": {Keys: []fanout.Key{fanout.NewKey("")}}}})
			out := &silent{}
			work := newAttempts(e, &fanout.Request{}, &fanout.Call{Target: target}, time.Now(), out)
			r := &race{work: work, ctx: t.Context(), first: work.newAttempt(t.Context(), target, fanout.First)}
			second := work.newAttempt(t.Context(), target, fanout.Hedged)
			happens(r)
			entered := r.enter(second)
			if entered != (name == "nothing") || (out.told == 1) != entered {
				t.Errorf("entered: %v, and %d events were told", entered, out.told)
			}
			if entered && (!r.claim(second) || r.claim(r.first) || r.first.ctx.Err() == nil) {
				t.Error("the floor was not given to the first who asked, or the other goes on")
			}
		})
	}
}
