// Package fakeprovider is a scripted upstream: a server that speaks the formats of OpenAI's chat
// completions, Anthropic's Messages and Gemini's generateContent, and misbehaves on demand. The
// request's model names the script, with options after a question mark
// ("ok?delay_ms=5&chunks=40"); every script is seeded, so a run can be repeated. CATALOGUE.md
// lists the scripts and their options.
//
// It ships with the service: conformance tests, load tests and demonstrations use it.
package fakeprovider

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Server is an http.Handler. The zero value is not usable; call New.
type Server struct {
	mux    *http.ServeMux
	byName map[string]*script

	mu      sync.Mutex
	log     []*Entry
	running map[*Entry]bool
	scripts map[string]*Count
	models  map[string]*modelState
	binding map[string]time.Time // by key hash: until when the last Retry-After told it to stay away
	total   Count
	early   int
	open    int // connections, where the server was Configured
	opened  int
}

// New returns a server with an empty log.
func New() *Server {
	s := &Server{mux: http.NewServeMux(), byName: map[string]*script{}}
	for i := range catalogue {
		s.byName[catalogue[i].name] = &catalogue[i]
	}
	s.Reset()
	for _, prefix := range []string{"", "/v1"} {
		s.mux.HandleFunc("POST "+prefix+"/chat/completions", func(w http.ResponseWriter, r *http.Request) {
			s.answer(w, r, &openAI{})
		})
		s.mux.HandleFunc("POST "+prefix+"/messages", func(w http.ResponseWriter, r *http.Request) {
			s.answer(w, r, &anthropic{})
		})
		s.mux.HandleFunc("GET "+prefix+"/models", s.listModels)
	}
	s.mux.HandleFunc("POST /v1beta/models/{call...}", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, newGemini(r))
	})
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]string{"status": "ok"})
	})
	s.mux.HandleFunc("GET /_/log", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, s.logOf(r.URL.Query()))
	})
	s.mux.HandleFunc("GET /_/stats", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, s.Stats())
	})
	s.mux.HandleFunc("POST /_/reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("/_/trap", s.trap)
	return s
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		OwnedBy string `json:"owned_by"`
	}
	list := make([]model, 0, len(catalogue))
	for _, one := range catalogue {
		list = append(list, model{one.name, "model", "fakeprovider"})
	}
	writeJSON(w, map[string]any{"object": "list", "data": list})
}

// trap is where redirects lead: whoever follows one is in the log, with the key they brought.
func (s *Server) trap(w http.ResponseWriter, r *http.Request) {
	key := ""
	for _, one := range []wire{&openAI{}, &anthropic{}, &gemini{}} {
		if key == "" {
			key = one.key(r)
		}
	}
	entry, _ := s.begin(Entry{Model: "trap", Script: "trap", KeyHash: hashOf(key)})
	w.WriteHeader(http.StatusTeapot)
	s.ended(entry)
}

// answer reads the request whole, so that a client that leaves is noticed at once, and runs its
// script.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, speaks wire) {
	entry := Entry{Wire: speaks.name(), KeyHash: hashOf(speaks.key(r))}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		entry.Script = "unread"
		kept, _ := s.begin(entry)
		s.aborted(kept)
		s.ended(kept)
		return
	}
	asked, err := speaks.read(r, body)
	name, query, _ := strings.Cut(asked.model, "?")
	entry.Model, entry.Script, entry.Stream, entry.Params = asked.model, name, asked.stream, asked.params
	refuse := func(why reason, detail string) {
		f := speaks.fault(why, http.StatusInternalServerError)
		f.message += detail
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.status)
		_, _ = w.Write([]byte(speaks.failure(f)))
	}
	if err != nil {
		detail := err.Error()
		if !json.Valid(body) {
			detail = "the body is not JSON"
		}
		refuse(badRequest, detail)
		return
	}
	options, err := url.ParseQuery(query)
	found, argument := s.find(name)
	if err != nil || found == nil || !found.speaks(speaks) {
		refuse(notFound, name)
		return
	}
	kept, nth := s.begin(entry)
	sess := &session{
		server: s, entry: kept, w: w, r: r, control: http.NewResponseController(w), wire: speaks, asked: asked,
		options: options, argument: argument, nth: nth, framing: plainFraming(), cutAt: -1,
	}
	defer sess.watch()() // a panic with http.ErrAbortHandler goes on: the script breaks the connection off
	found.run(sess)
	sess.close()
}
