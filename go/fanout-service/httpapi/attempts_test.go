package httpapi_test

import (
	"slices"
	"strings"
	"testing"

	fanout "rex/fanout-service"
)

// asks adds what a call may ask for.
func asks(name string, value any) map[string]any { return map[string]any{name: value} }

var (
	twice    = asks("retry", map[string]any{"attempts": 2})
	anew     = asks("retry", map[string]any{"attempts": 2, "restart": true})
	thinking = asks("thoughts", true)
)

func fallbackTo(model string) map[string]any {
	return asks("fallbacks", []map[string]string{{"provider": "openrouter", "model": model}})
}

// stories are calls of every kind of attempt, and what is told of them.
var stories = map[string]struct {
	call  callSpec
	story string
	text  string
}{
	"a first attempt that answers": {
		call("A", "ok"), "started 1 first, chunk, finished 1", twelve,
	},
	"a retry": {
		call("A", "fail-first?id=retry", twice),
		"started 1 first, attempt_failed 1 overloaded, started 2 retry, chunk, finished 2", twelve,
	},
	"a retry that fails as well": {
		call("A", "http-500", twice),
		"started 1 first, attempt_failed 1 server_error, started 2 retry, failed 2 server_error", "",
	},
	"no retry of what will not change": {
		call("A", "http-400", twice), "started 1 first, failed 1 invalid_request", "",
	},
	"no retry behind text": {
		call("A", "fail-first?as=cut&id=behind", twice), "started 1 first, chunk, failed 1 incomplete", three,
	},
	"a restart behind text": {
		call("A", "fail-first?as=cut&id=restart", anew),
		"started 1 first, chunk, attempt_failed 1 incomplete, started 2 restart, chunk, finished 2", twelve,
	},
	"a fallback": {
		call("A", "http-401", fallbackTo("ok")),
		"started 1 first, attempt_failed 1 auth, started 2 fallback, chunk, finished 2", twelve,
	},
	"a fallback behind retries": {
		call("A", "http-503", twice, fallbackTo("ok")),
		"started 1 first, attempt_failed 1 overloaded, started 2 retry, attempt_failed 2 overloaded, started 3 fallback, chunk, finished 3", twelve,
	},
	"reasoning that was asked for": {
		call("A", "reasoning", thinking), "started 1 first, thought, chunk, finished 1", twelve,
	},
	"reasoning that was not": {
		call("A", "reasoning"), "started 1 first, chunk, finished 1", twelve,
	},
	"an answer asked for in one piece": {
		call("A", "ok", asks("whole", true)), "started 1 first, chunk, finished 1", twelve,
	},
}

func TestEveryAttemptIsTold(t *testing.T) {
	for name, want := range stories {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			got := s.run(body(t, "r", 60_000, want.call))["A"]
			// The chunks that a restart overtook may never have been shown.
			story := strings.Join(got.story, ", ")
			if strings.Contains(want.story, "restart") {
				story = strings.Replace(story, "started 1 first, attempt", "started 1 first, chunk, attempt", 1)
			}
			if story != want.story || got.text != want.text {
				t.Errorf("told %q with %q", story, got.text)
			}
			if hasThoughts := strings.Contains(want.story, "thought"); hasThoughts != (got.thoughts != "") {
				t.Errorf("the thoughts are %q", got.thoughts)
			}
			if got.last.Type == "finished" && (got.last.Age != nil || got.last.Model == "") {
				t.Errorf("%+v", got.last)
			}
			if admitted := got.last.Timing["admitted"]; admitted == nil || *admitted < *got.last.Timing["queued"] {
				t.Errorf("the moments are %s", show(got.last.Timing))
			}
		})
	}
}

func TestAHedgeThatIsFasterIsTheAnswer(t *testing.T) {
	s := newService(t)
	hedge := asks("hedge", map[string]any{"after_ms": 20, "provider": "openrouter", "model": "ok"})
	got := s.run(body(t, "r", 60_000, call("A", "slow-first-token", hedge)))["A"]
	// The loser's end may stand anywhere among the winner's text.
	got.story = slices.DeleteFunc(got.story, func(word string) bool { return word == "chunk" })
	want := []string{"started 1 first", "started 2 hedge", "attempt_failed 1 stop.superseded", "finished 2"}
	if !slices.Equal(got.story, want) || got.text != twelve || got.last.Model != "ok" {
		t.Errorf("told %q with %q of %s", got.story, got.text, got.last.Model)
	}
	s.aborted(1)
}

func TestAKnownAnswerIsReplayed(t *testing.T) {
	s := newService(t)
	cached := asks("cache", map[string]any{"key": strings.Repeat("0a", 32), "mode": "read_write"})
	ask := func(id string) outcome {
		return s.run(bodyWith(t, map[string]any{"id": id, "workspace": "w"}, call("A", "ok", cached)))["A"]
	}
	fresh, replayed := ask("r-1"), ask("r-2")
	if fresh.text != twelve || fresh.last.Age != nil {
		t.Errorf("%+v", fresh.last)
	}
	want := []string{"started 0 cache", "chunk", "finished 0"}
	if !slices.Equal(replayed.story, want) || replayed.text != twelve || replayed.last.Age == nil {
		t.Errorf("told %q with %q: %+v", replayed.story, replayed.text, replayed.last)
	}
	if n := len(s.fake.Log()); n != 1 {
		t.Errorf("%d calls went upstream", n)
	}
}

func TestACallThatIsStoppedInBackOffMakesNoOtherAttempt(t *testing.T) {
	s := newService(t)
	ended := make(chan outcome)
	go func() {
		ended <- s.run(body(t, "r", 60_000, call("A", "rate-limited?retry_after=50", twice)))["A"]
	}()
	s.wait("the first attempt", func() bool {
		log := s.fake.Log()
		return len(log) == 1 && log[0].EndedAt != nil
	})
	if !s.engine.Cancel("r", "A", fanout.StopUser) {
		t.Error("the call was not in flight")
	}
	got := <-ended
	if got.last.Kind != fanout.StopUser || *got.last.Attempt != 1 {
		t.Errorf("told %q", got.story)
	}
}
