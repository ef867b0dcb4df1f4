package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/engine"
	"rex/fanout-service/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a provider that does what a test says.
type script func(ctx context.Context, call *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error)

func (s script) Stream(ctx context.Context, call *fanout.Call, key fanout.Key, sink fanout.Sink) (fanout.Answer, error) {
	return s(ctx, call, key, sink)
}

var done = fanout.Answer{FinishReason: fanout.FinishStop}

// hang waits for the end of the context, as a provider must.
func hang(ctx context.Context) (fanout.Answer, error) {
	<-ctx.Done()
	return fanout.Answer{}, context.Cause(ctx)
}

// parts are what a test's engine is made of; what is not given is as plain as can be.
type parts struct {
	config engine.Config
	limits limit.Config
	shared *limit.Shared // with other processes
	cached bool
	quiet  bool // nobody observes
	keys   []fanout.Key
	more   map[string]script // other providers than p
}

// watched is an engine's observer and all it was told.
type watched struct {
	log     bytes.Buffer
	limiter *limit.Limiter

	mu       sync.Mutex
	open     int // begun and not ended
	fanouts  []engine.FanoutRecord
	calls    []engine.CallRecord
	attempts []engine.AttemptRecord
	tries    []engine.Attempt
}

// newEngine gives every call of provider p to the script.
func newEngine(s script, config engine.Config) (*engine.Engine, *watched) {
	return build(s, parts{config: config})
}

func build(s script, p parts) (*engine.Engine, *watched) {
	w := &watched{}
	log := slog.New(slog.NewJSONHandler(&w.log, nil))
	if p.keys == nil {
		p.keys = []fanout.Key{fanout.NewKey("")}
	}
	upstreams := map[string]engine.Upstream{"p": {Provider: s, Keys: p.keys}}
	for name, other := range p.more {
		upstreams[name] = engine.Upstream{Provider: other, Keys: []fanout.Key{fanout.NewKey("")}}
	}
	w.limiter = limit.New(p.limits, p.shared, log)
	made := engine.Parts{Upstreams: upstreams, Limiter: w.limiter, Observer: w, Log: log}
	if p.quiet {
		made.Observer = nil
	}
	if p.cached {
		made.Cache = cache.New(cache.Config{MaxBytes: 1 << 20, TTL: time.Hour}, nil, log)
	}
	return engine.New(p.config, made), w
}

func (w *watched) Fanout(ctx context.Context, _ *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	return ctx, noted(w, &w.fanouts)
}

func (w *watched) Call(ctx context.Context, _ *fanout.Request, _ *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	return ctx, noted(w, &w.calls)
}

func (w *watched) Attempt(ctx context.Context, _ *fanout.Request, _ *fanout.Call, attempt *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	w.mu.Lock()
	w.tries = append(w.tries, *attempt)
	w.mu.Unlock()
	return ctx, noted(w, &w.attempts)
}

func noted[R any](w *watched, records *[]R) func(*R) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open++
	return func(record *R) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open--
		*records = append(*records, *record)
	}
}

// outcomes are those of the calls.
func (w *watched) outcomes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, record := range w.calls {
		all = append(all, record.Outcome)
	}
	return all
}

// settled checks that an engine at rest holds nothing: no call, no text, no permit, and that each
// thing an observer saw begin has ended.
func (w *watched) settled(t *testing.T, e *engine.Engine) {
	t.Helper()
	e.Wait()
	if stats := e.Stats(); stats != (engine.Stats{}) {
		t.Errorf("left in flight: %+v", stats)
	}
	for _, state := range w.limiter.Targets() {
		if state.InFlight != 0 || state.Queued != 0 {
			t.Errorf("permits are left: %+v", state)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != 0 {
		t.Errorf("the observer waits for %d ends", w.open)
	}
}

func request(id string, calls int) fanout.Request {
	r := fanout.Request{ID: id, Workspace: "w", Deadline: time.Hour, Coalesce: fanout.DefaultCoalesce}
	for i := range calls {
		r.Calls = append(r.Calls, fanout.Call{
			ID: fmt.Sprintf("c%d", i), Target: fanout.Target{Provider: "p", Model: "m"}, Timeouts: fanout.DefaultTimeouts,
			Messages: []fanout.Message{{Role: "user", Content: "secret prompt 日本"}},
			Retry:    fanout.Retry{Attempts: 1},
		})
	}
	return r
}

// trace is a run as its reader saw it.
type trace struct {
	batches [][]fanout.Event
	at      []time.Duration
	end     *fanout.End
}

func (tr *trace) add(received time.Time, events []fanout.Event, end *fanout.End) {
	batch := make([]fanout.Event, len(events))
	for i, event := range events {
		event.Text = bytes.Clone(event.Text)
		batch[i] = event
	}
	tr.batches = append(tr.batches, batch)
	tr.at = append(tr.at, time.Since(received))
	if end != nil {
		copied := *end
		tr.end = &copied
	}
}

func (tr *trace) events(call string) (all []fanout.Event) {
	for _, batch := range tr.batches {
		for _, e := range batch {
			if e.Call == call {
				all = append(all, e)
			}
		}
	}
	return all
}

// text is the answer as the contract says it: it starts over with an attempt that starts behind text.
func (tr *trace) text(call string) string {
	var text strings.Builder
	for _, e := range tr.events(call) {
		switch e.Type {
		case fanout.Started:
			text.Reset()
		case fanout.Chunk:
			text.Write(e.Text)
		default:
		}
	}
	return text.String()
}

// told are the types of a call's events, text joined, with attempts and kinds.
func (tr *trace) told(call string) (all []string) {
	for _, e := range tr.events(call) {
		word := string(e.Type)
		switch e.Type {
		case fanout.Started:
			word = fmt.Sprintf("started %d %s %s", e.Attempt, e.Reason, e.Target.Provider)
		case fanout.AttemptFailed, fanout.Failed:
			word = fmt.Sprintf("%s %d %s", e.Type, e.Attempt, e.Failure.Kind)
		case fanout.Finished:
			word = fmt.Sprintf("finished %d %s", e.Attempt, e.Target.Provider)
		default:
		}
		if len(all) == 0 || all[len(all)-1] != word {
			all = append(all, word)
		}
	}
	return all
}

func (tr *trace) expect(t *testing.T, call string, want ...string) {
	t.Helper()
	if got := tr.told(call); !slices.Equal(got, want) {
		t.Errorf("%s was told\n\t%q\nwant\n\t%q", call, got, want)
	}
}

// last is the call's last event, after a look at whether its events follow each other as the
// contract says.
func (tr *trace) last(t *testing.T, call string) fanout.Event {
	t.Helper()
	events := tr.events(call)
	if fault := grammar(events); fault != "" {
		t.Errorf("%s: %s: %q", call, fault, tr.told(call))
	}
	if len(events) == 0 {
		return fanout.Event{}
	}
	return events[len(events)-1]
}

// grammar returns what is wrong with the events of one call, or "".
func grammar(events []fanout.Event) string {
	open, begun, made, ended, at, asked := map[int]bool{}, map[int]bool{}, 0, 0, time.Duration(0), 0
	// A replay may go on as an attempt that was another call's: that has no start here.
	is := func(attempt int) bool { return open[attempt] || begun[0] && attempt > 0 && !begun[attempt] }
	for _, e := range events {
		if ended > 0 {
			return "an event behind the last"
		}
		if e.At < at {
			return "time goes back"
		}
		at = e.At
		switch e.Type {
		case fanout.Queued:
			if asked++; asked > 1 {
				return "queued twice for one attempt"
			}
		case fanout.Started:
			replay := e.Attempt == 0
			if replay != (e.Reason == fanout.Replay) || (e.Attempt == 1) != (e.Reason == fanout.First) {
				return "a reason that does not fit"
			}
			if !replay && (e.Attempt <= made || e.Attempt > made+1 && !begun[0]) || replay && made > 0 {
				return "attempts out of order"
			}
			if e.Reason != fanout.Hedged { // that runs beside the attempt which was replayed
				delete(open, 0)
			}
			if e.Target == (fanout.Target{}) {
				return "an attempt at nothing"
			}
			made, asked = e.Attempt, 0
			open[e.Attempt], begun[e.Attempt] = true, true
		case fanout.Chunk, fanout.Thought:
			if len(open) == 0 || len(e.Text) == 0 {
				return "text without an attempt, or empty"
			}
		case fanout.AttemptFailed:
			if !is(e.Attempt) || e.Failure == nil {
				return "a failure of an attempt that is not open"
			}
			delete(open, e.Attempt)
			begun[e.Attempt] = true
		case fanout.Finished:
			if e.Attempt > 0 {
				delete(open, 0)
			}
			if !is(e.Attempt) || len(open) > 1 || e.Usage == nil || e.FinishReason == "" || (e.Attempt == 0) != (e.CachedAge != fanout.Never) {
				return "an end of what is not open"
			}
			ended++
		case fanout.Failed:
			if e.Failure == nil || e.Attempt > made && !is(e.Attempt) && !begun[0] {
				return "a failure of nothing"
			}
			ended++
		}
	}
	if ended != 1 {
		return "no end"
	}
	return ""
}

func (tr *trace) kind(t *testing.T, call string) fanout.Kind {
	t.Helper()
	if last := tr.last(t, call); last.Failure != nil {
		return last.Failure.Kind
	}
	return ""
}

// read runs a request to its end.
func read(ctx context.Context, t *testing.T, e *engine.Engine, r fanout.Request) *trace {
	t.Helper()
	received := time.Now()
	run, err := e.Start(ctx, r, received)
	tr := &trace{}
	if err != nil {
		t.Error(err)
		return tr
	}
	err = run.Read(ctx, func(events []fanout.Event, end *fanout.End) error {
		tr.add(received, events, end)
		return nil
	})
	if err != nil {
		t.Errorf("Read: %v", err)
	}
	for _, c := range r.Calls {
		tr.last(t, c.ID)
	}
	return tr
}
