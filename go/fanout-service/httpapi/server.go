// Package httpapi speaks contract v1 over HTTP: it reads requests, hands them to the engine, and
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
	readLimit    = 30 * time.Second // for a body to arrive
	retryDrained = "2"              // seconds; another process will have taken over by then
)

// ProviderInfo is a line of GET /providers.
type ProviderInfo struct {
	Name       string `json:"name"`
	Title      string `json:"title"`
	Configured bool   `json:"configured"`
}

// Options are what the handler needs to know besides the engine.
type Options struct {
	Version    string
	Providers  []ProviderInfo
	WriteLimit time.Duration // how long a reader may take nothing; 0 means 30 s
}

type api struct {
	engine  *engine.Engine
	options Options
}

// New returns the service's handler.
func New(e *engine.Engine, options Options) http.Handler {
	if options.WriteLimit == 0 {
		options.WriteLimit = writeLimit
	}
	a := &api{e, options}
	mux := http.NewServeMux()
	mux.HandleFunc("/fanout", only(http.MethodPost, a.fanout))
	mux.HandleFunc("/fanout/{id}", only(http.MethodDelete, a.cancel))
	mux.HandleFunc("/fanout/{id}/calls/{call}", only(http.MethodDelete, a.cancel))
	mux.HandleFunc("/healthz", only(http.MethodGet, a.health))
	mux.HandleFunc("/providers", only(http.MethodGet, a.providers))
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
	run, err := a.engine.Start(r.Context(), request, received)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := lines{w: w, control: http.NewResponseController(w), limit: a.options.WriteLimit}
	if err := run.Read(r.Context(), out.write); err != nil {
		// The stream has no end line, and closing the connection tells the reader so.
		panic(http.ErrAbortHandler)
	}
}

func (a *api) read(w http.ResponseWriter, r *http.Request) (fanout.Request, error) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media != "application/json" {
		return fanout.Request{}, &refusal{http.StatusUnsupportedMediaType, "invalid_request", "Send application/json.", ""}
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(readLimit)); err != nil {
		return fanout.Request{}, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return fanout.Request{}, tooLarge("", "At most %d MiB.", maxBody>>20)
	}
	if err != nil {
		return fanout.Request{}, invalid("", "The body did not arrive.")
	}
	// From here on a read only waits for the client to leave, for as long as the answer takes.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return fanout.Request{}, err
	}
	request, err := decode(body)
	if err != nil {
		return fanout.Request{}, err
	}
	for i := range request.Calls {
		if name := request.Calls[i].Provider; !a.engine.Knows(name) {
			return fanout.Request{}, &refusal{http.StatusUnprocessableEntity, "invalid_request",
				fmt.Sprintf("The provider %q is unknown or not configured.", name), fmt.Sprintf("calls[%d].provider", i)}
		}
	}
	return request, nil
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

func (a *api) health(w http.ResponseWriter, _ *http.Request) {
	status, word := http.StatusOK, "ok"
	if a.engine.Draining() {
		status, word = http.StatusServiceUnavailable, "draining"
		w.Header().Set("Retry-After", retryDrained)
	}
	writeJSON(w, status, map[string]any{"status": word, "version": a.options.Version, "in_flight": a.engine.InFlight()})
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
		w.Header().Set("Retry-After", retryDrained)
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
