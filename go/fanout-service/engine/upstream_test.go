package engine_test

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/engine"
	"rex/fanout-service/fakeprovider"
	"rex/fanout-service/limit"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/retry"
)

// upstream is an engine before a real provider, over real sockets.
func upstream(t *testing.T, config engine.Config, keys ...fanout.Key) (*engine.Engine, *watched, *fakeprovider.Server) {
	t.Helper()
	fake := fakeprovider.New()
	server := httptest.NewServer(fake)
	client := provider.NewClient(provider.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil))
	if keys == nil {
		keys = []fanout.Key{fanout.NewKey("only")}
	}
	w := &watched{}
	log := slog.New(slog.NewJSONHandler(&w.log, nil))
	w.limiter = limit.New(limit.Config{}, nil, log)
	e := engine.New(config, engine.Parts{
		Upstreams: map[string]engine.Upstream{"p": {
			Provider: openai.New(provider.Config{Name: "p", BaseURL: server.URL + "/v1", Keys: keys}, client), Keys: keys,
		}},
		Limiter: w.limiter, Cache: cache.New(cache.Config{MaxBytes: 1 << 20}, nil, log), Observer: w, Log: log,
	})
	t.Cleanup(func() {
		w.settled(t, e)
		for range 500 { // the provider sees a connection close a moment later
			if fake.Stats().InFlight == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if stats := fake.Stats(); stats.InFlight != 0 {
			t.Errorf("the provider still answers: %+v", stats)
		}
		client.CloseIdleConnections()
		server.Close()
	})
	return e, w, fake
}

// asking is a request of calls that name a script of the provider.
func asking(model string, calls int) fanout.Request {
	r := request(model, calls)
	for i := range r.Calls {
		r.Calls[i].Model = model
	}
	return r
}

func TestAProviderThatRecoversIsAskedAgain(t *testing.T) {
	e, _, fake := upstream(t, engine.Config{})
	r := asking("fail-first?n=2&delay_ms=0", 1)
	r.Calls[0].Retry.Attempts = 3
	tr := read(t.Context(), t, e, r)
	tr.expect(t, "c0", "started 1 first p", "attempt_failed 1 overloaded", "started 2 retry p",
		"attempt_failed 2 overloaded", "started 3 retry p", "chunk", "finished 3 p")
	if n := fake.Stats().Requests; n != 3 {
		t.Errorf("%d requests", n)
	}
}

func TestNobodyAsksBeforeTheProviderAllowsIt(t *testing.T) {
	e, _, fake := upstream(t, engine.Config{})
	const model = "window?window_ms=700&delay_ms=0"
	told := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		r := asking(model, 1)
		r.Calls[0].Retry.Attempts = 2
		run, err := e.Start(t.Context(), r, time.Now())
		if err != nil {
			t.Error(err)
			return
		}
		_ = run.Read(t.Context(), func(events []fanout.Event, _ *fanout.End) error {
			for _, event := range events {
				if event.Type == fanout.AttemptFailed {
					close(told)
				}
			}
			return nil
		})
	})
	<-told
	r := asking(model, 40)
	r.ID = "later"
	tr := read(t.Context(), t, e, r)
	all.Wait()
	for i := range r.Calls {
		id := fmt.Sprintf("c%d", i)
		if kind := tr.kind(t, id); kind != "" || tr.events(id)[0].Type != fanout.Queued {
			t.Errorf("%s: %q", id, tr.told(id))
		}
	}
	if stats := fake.Stats(); stats.Early != 0 || stats.Requests != 42 {
		t.Errorf("%d of %d requests came too early", stats.Early, stats.Requests)
	}
}

func TestAFailingProviderIsNotAskedMuchMore(t *testing.T) {
	e, _, fake := upstream(t, engine.Config{})
	r := asking("http-500", 200)
	for i := range r.Calls {
		r.Calls[i].Retry.Attempts = 3
	}
	r.Deadline = 2 * time.Second // what waits for the circuit to close fails instead
	tr := read(t.Context(), t, e, r)
	for i := range r.Calls {
		switch kind := tr.kind(t, fmt.Sprintf("c%d", i)); kind {
		case fanout.ServerError, fanout.CircuitOpen:
		default:
			t.Errorf("c%d: %q", i, kind)
		}
	}
	if n := fake.Stats().Requests; n > 200*12/10 {
		t.Errorf("%d requests of 200 calls", n)
	}
}

func TestAHedgesLoserIsClosedUpstream(t *testing.T) {
	e, _, fake := upstream(t, engine.Config{})
	r := asking("slow-once?slow_ms=60000&delay_ms=0", 1)
	r.Calls[0].Hedge = &fanout.Hedge{After: 50 * time.Millisecond}
	tr := read(t.Context(), t, e, r)
	told := tr.told("c0")
	if len(told) < 5 || told[1] != "started 2 hedge p" || tr.last(t, "c0").Attempt != 2 {
		t.Errorf("%q", told)
	}
	for range 500 {
		if fake.Stats().Aborted == 1 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the provider saw %+v", fake.Stats())
}

func TestThePoolOfKeysIsWalked(t *testing.T) {
	keys := fanout.NewKeys("dead", "limited", "fine")
	dead, limited, fine := keys[0], keys[1], keys[2]
	// The scripted provider knows keys by the digits of their IDs.
	model := fmt.Sprintf("keys?dead=%s&limited=%s&retry_after=3600&delay_ms=0", dead.ID(), limited.ID())
	e, w, fake := upstream(t, engine.Config{Retry: retry.Config{BudgetFloor: 1}}, dead, limited, fine)
	for n := range 20 {
		r := asking(model, 1)
		r.ID = fmt.Sprintf("r%d", n)
		r.Calls[0].Retry.Attempts = 2
		if tr := read(t.Context(), t, e, r); tr.kind(t, "c0") != "" || tr.last(t, "c0").At > 5*time.Second {
			t.Errorf("%q", tr.told("c0"))
		}
	}
	if n := fake.Stats().Requests; n != 22 {
		t.Errorf("%d requests of 20 calls, two of which had to find the good key", n)
	}
	if last := w.attempts[len(w.attempts)-1]; last.KeyID != fine.Handle() {
		t.Errorf("asked with key %s", last.KeyID)
	}
}

func TestManyCallsAreOneRequestUpstream(t *testing.T) {
	e, _, fake := upstream(t, engine.Config{})
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			r := asking("ok", 4)
			r.ID = fmt.Sprintf("r%d", n)
			cached(&r)
			tr := read(t.Context(), t, e, r)
			for i := range r.Calls {
				if tr.kind(t, r.Calls[i].ID) != "" || tr.text(r.Calls[i].ID) != tr.text("c0") {
					t.Errorf("%s: %q", r.Calls[i].ID, tr.told(r.Calls[i].ID))
				}
			}
		})
	}
	all.Wait()
	if n := fake.Stats().Requests; n != 1 {
		t.Errorf("%d requests of 200 calls that ask the same", n)
	}
}
