// Package httpapi speaks contract v2 over HTTP: it reads requests, hands them to the engine, and
// writes what happens as lines of JSON.
package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

const (
	readLimit  = 30 * time.Second // for a body to arrive
	retryAfter = "1"              // seconds: when a service that cannot take a request may be asked again
)

// ProviderInfo is a line of GET /providers.
type ProviderInfo struct {
	Name       string `json:"name"`
	Title      string `json:"title"`
	Configured bool   `json:"configured"`
}

// Options are what the handler needs to know besides the engine.
type Options struct {
	Version   string
	Providers []ProviderInfo
	Patience  time.Duration // how long a reader may take nothing until its calls are stopped; 0 means 30 s
	MaxBody   int64         // bytes of a request's body; 0 means 16 MiB
	Ready     func() bool   // whether fan-outs can be taken, besides draining; nil means always
	Metrics   http.Handler  // of GET /metrics; nil: there is none
}

type api struct {
	engine  *engine.Engine
	options Options
}

// New returns the service's handler.
func New(e *engine.Engine, options Options) http.Handler {
	if options.Patience == 0 {
		options.Patience = patience
	}
	if options.MaxBody == 0 {
		options.MaxBody = maxBody
	}
	options.MaxBody = min(options.MaxBody, e.MaxBytes()) // else it would be refused as if there were room later
	a := &api{e, options}
	mux := http.NewServeMux()
	mux.HandleFunc("/fanout", only(http.MethodPost, a.fanout))
	mux.HandleFunc("/fanout/{id}", only(http.MethodDelete, a.cancel))
	mux.HandleFunc("/fanout/{id}/calls/{call}", only(http.MethodDelete, a.cancel))
	mux.HandleFunc("/healthz", only(http.MethodGet, a.health))
	mux.HandleFunc("/readyz", only(http.MethodGet, a.ready))
	if options.Metrics != nil {
		mux.HandleFunc("/metrics", only(http.MethodGet, options.Metrics.ServeHTTP))
	}
	mux.HandleFunc("/providers", only(http.MethodGet, a.providers))
	mux.HandleFunc("/targets", only(http.MethodGet, a.targets))
	mux.HandleFunc("/cache/{workspace}", only(http.MethodDelete, a.purge))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, &refusal{http.StatusNotFound, "invalid_request", "There is nothing at this path.", ""})
	})
	return mux
}

// fanout reads the body whole before anything else: only then does the server notice that a
// client has left.
func (a *api) fanout(w http.ResponseWriter, r *http.Request) {
	received := time.Now()
	request, err := a.read(w, r)
	if err != nil {
		refuse(w, err)
		return
	}
	run, err := a.engine.Start(r.Context(), request.Request, received)
	if err != nil {
		refuse(w, err)
		return
	}
	out := newFlow(w, a.options.Patience, func() { run.Stop(fanout.SlowReader) })
	w.Header().Set("Cache-Control", "no-store")
	if request.inOnePiece {
		answer := newWhole(request.Calls, out, run.Hold, func() { run.Stop(fanout.ResponseTooLarge) })
		err = run.Read(r.Context(), answer.take)
	} else {
		w.Header().Set("Content-Type", "application/x-ndjson")
		err = run.Read(r.Context(), (&lines{out: out}).write)
	}
	if err != nil {
		// The stream has no end line, and closing the connection tells the reader so.
		panic(http.ErrAbortHandler)
	}
}

func (a *api) read(w http.ResponseWriter, r *http.Request) (asked, error) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media != "application/json" {
		return asked{}, &refusal{http.StatusUnsupportedMediaType, "invalid_request", "Send application/json.", ""}
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(readLimit)); err != nil {
		return asked{}, err
	}
	coming := &arriving{body: http.MaxBytesReader(w, r.Body, a.options.MaxBody), engine: a.engine}
	defer coming.release()
	body, err := io.ReadAll(coming)
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return asked{}, tooLarge("", "At most %d bytes.", a.options.MaxBody)
	}
	if errors.Is(err, engine.ErrBusy) {
		return asked{}, err
	}
	if err != nil {
		return asked{}, invalid("", "The body did not arrive.")
	}
	// From here on a read only waits for the client to leave, for as long as the answer takes.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return asked{}, err
	}
	request, err := decode(body)
	if err != nil {
		return asked{}, err
	}
	return request, a.knowsAll(request.Calls)
}

// knowsAll refuses calls to providers that cannot be asked.
func (a *api) knowsAll(calls []fanout.Call) error {
	for i := range calls {
		call := &calls[i]
		if !a.engine.Knows(call.Provider) {
			return unknownProvider(call.Provider, fmt.Sprintf("calls[%d].provider", i))
		}
		for k := range call.Fallbacks {
			if !a.engine.Knows(call.Fallbacks[k].Provider) {
				return unknownProvider(call.Fallbacks[k].Provider, fmt.Sprintf("calls[%d].fallbacks[%d].provider", i, k))
			}
		}
		if call.Hedge != nil && call.Hedge.Target != (fanout.Target{}) && !a.engine.Knows(call.Hedge.Target.Provider) {
			return unknownProvider(call.Hedge.Target.Provider, fmt.Sprintf("calls[%d].hedge.provider", i))
		}
	}
	return nil
}

func unknownProvider(name, field string) error {
	return &refusal{http.StatusUnprocessableEntity, "invalid_request",
		fmt.Sprintf("The provider %q is unknown or not configured.", name), field}
}

func (a *api) cancel(w http.ResponseWriter, r *http.Request) {
	kind := fanout.StopUser
	switch reason := r.URL.Query().Get("reason"); reason {
	case "", string(fanout.StopUser):
	case string(fanout.StopSuperseded):
		kind = fanout.StopSuperseded
	default:
		refuse(w, invalid("reason", "Expected stop.user or stop.superseded."))
		return
	}
	if !a.engine.Cancel(r.PathValue("id"), r.PathValue("call"), kind) {
		refuse(w, &refusal{http.StatusNotFound, "invalid_request", "No such fan-out or call is in flight.", ""})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// health says that the process lives, also while it drains: whoever restarts what does not live
// must leave it alone.
func (a *api) health(w http.ResponseWriter, _ *http.Request) {
	word := "ok"
	if a.engine.Draining() {
		word = "draining"
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": word, "version": a.options.Version, "in_flight": a.engine.InFlight()})
}

// ready says whether new fan-outs are taken.
func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	switch {
	case a.engine.Draining():
		refuse(w, engine.ErrDraining)
	case a.options.Ready != nil && !a.options.Ready():
		w.Header().Set("Retry-After", retryAfter)
		refuse(w, &refusal{http.StatusServiceUnavailable, "overloaded", "The service is starting.", ""})
	default:
		writeJSON(w, http.StatusOK, map[string]any{"status": "ready"})
	}
}

func (a *api) providers(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"providers": a.options.Providers})
}

// only answers other methods in the contract's form.
func only(method string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			refuse(w, &refusal{http.StatusMethodNotAllowed, "invalid_request", "Use " + method + ".", ""})
			return
		}
		next(w, r)
	}
}

// refuse is the one place that writes errors.
func refuse(w http.ResponseWriter, err error) {
	answer := &refusal{http.StatusInternalServerError, "internal", "The service failed.", ""}
	switch {
	case errors.As(err, &answer):
	case errors.Is(err, engine.ErrDuplicate):
		answer = &refusal{http.StatusConflict, "invalid_request", "A fan-out with this id is in flight.", "id"}
	case errors.Is(err, engine.ErrDraining):
		answer = &refusal{http.StatusServiceUnavailable, "overloaded", "The service is shutting down.", ""}
		w.Header().Set("Retry-After", retryAfter)
	case errors.Is(err, engine.ErrTooWide): // to come again would be of no use
		answer = &refusal{http.StatusRequestEntityTooLarge, "invalid_request", "More calls, or more text, than this service can have in flight.", "calls"}
	case errors.Is(err, engine.ErrBusy):
		answer = &refusal{http.StatusServiceUnavailable, "overloaded", "Too much is in flight.", ""}
		w.Header().Set("Retry-After", retryAfter)
	}
	field := any(answer.field)
	if answer.field == "" {
		field = nil
	}
	writeJSON(w, answer.status, map[string]any{
		"error": map[string]any{"kind": answer.kind, "message": answer.message, "field": field},
	})
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client may have left
}
