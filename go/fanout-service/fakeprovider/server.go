// Package fakeprovider is a scripted upstream: a server that speaks the OpenAI chat completions
// format and misbehaves on demand. The request's model names the script, with options after a
// question mark ("ok?delay_ms=5&chunks=40"); every script is seeded, so a run can be repeated.
//
// It ships with the service: conformance tests, load tests and demonstrations use it.
package fakeprovider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Entry is one request as the log tells it.
type Entry struct {
	Model     string          `json:"model"`
	Script    string          `json:"script"`
	Stream    bool            `json:"stream"`
	At        time.Time       `json:"at"`
	AbortedAt *time.Time      `json:"aborted_at"` // when the client was seen to leave, if it left early
	Finished  bool            `json:"finished"`   // the script ran to its own end
	EndedAt   *time.Time      `json:"ended_at"`
	KeyHash   string          `json:"key_hash"` // first 12 hex digits of SHA-256 of the bearer key, "" without one
	Params    json.RawMessage `json:"params"`   // the request without model and messages
}

// Server is an http.Handler. The zero value is not usable; call New.
type Server struct {
	mux *http.ServeMux
	mu  sync.Mutex
	log []*Entry
}

// New returns a server with an empty log.
func New() *Server {
	s := &Server{mux: http.NewServeMux()}
	for _, prefix := range []string{"", "/v1"} {
		s.mux.HandleFunc("POST "+prefix+"/chat/completions", s.completions)
		s.mux.HandleFunc("GET "+prefix+"/models", s.models)
	}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	s.mux.HandleFunc("GET /_/log", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.Log())
	})
	s.mux.HandleFunc("POST /_/reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("/_/trap", func(w http.ResponseWriter, r *http.Request) {
		s.begin("trap", "trap", false, r.Header.Get("Authorization"), nil)
		w.WriteHeader(http.StatusTeapot)
	})
	return s
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Log returns a copy of the log, oldest first.
func (s *Server) Log() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Entry, 0, len(s.log))
	for _, e := range s.log {
		out = append(out, *e)
	}
	return out
}

// Reset empties the log; requests still running are no longer told of.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = nil
}

func (s *Server) begin(model, script string, stream bool, auth string, params json.RawMessage) *Entry {
	e := &Entry{Model: model, Script: script, Stream: stream, At: time.Now().UTC(), Params: params}
	if key, ok := strings.CutPrefix(auth, "Bearer "); ok {
		sum := sha256.Sum256([]byte(key))
		e.KeyHash = hex.EncodeToString(sum[:])[:12]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, e)
	return e
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		OwnedBy string `json:"owned_by"`
	}
	list := make([]model, 0, len(scripts))
	for name := range scripts {
		list = append(list, model{name, "model", "fakeprovider"})
	}
	slices.SortFunc(list, func(a, b model) int { return strings.Compare(a.ID, b.ID) })
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

type chatRequest struct {
	Model    string `json:"model"`
	Stream   bool   `json:"stream"`
	Messages []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           int `json:"max_tokens"`
	MaxCompletionTokens int `json:"max_completion_tokens"`
}

// completions reads the request whole, so that a client that leaves is noticed at once.
func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var request chatRequest
	if err := json.Unmarshal(body, &request); err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request_error", "", "the body is not JSON")
		return
	}
	name, query, _ := strings.Cut(request.Model, "?")
	options, err := url.ParseQuery(query)
	script, argument := find(name)
	if err != nil || script == nil {
		writeError(w, http.StatusNotFound, "invalid_request_error", "model_not_found", "no such script: "+name)
		return
	}
	entry := s.begin(request.Model, name, request.Stream, r.Header.Get("Authorization"), params(body))
	sess := newSession(w, r, request, options, argument)
	stop := context.AfterFunc(r.Context(), func() {
		now := time.Now().UTC()
		s.mu.Lock()
		defer s.mu.Unlock()
		entry.AbortedAt = &now
	})
	defer func() {
		stop()
		now := time.Now().UTC()
		s.mu.Lock()
		entry.EndedAt = &now
		entry.Finished = entry.AbortedAt == nil && !sess.gone
		s.mu.Unlock()
		if caught := recover(); caught != nil {
			panic(caught) // http.ErrAbortHandler: the script breaks the connection off
		}
	}()
	script(sess)
	sess.close()
}

// find resolves a script by name; "prose-3" and "http-503" carry a number.
func find(name string) (script, int) {
	if found, ok := scripts[name]; ok {
		return found, 0
	}
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		return nil, 0
	}
	number, err := strconv.Atoi(name[at+1:])
	if err != nil || number < 0 {
		return nil, 0
	}
	return scripts[name[:at]+"-<n>"], number
}

// params is the request as sent, without model and messages.
func params(body []byte) json.RawMessage {
	var all map[string]json.RawMessage
	if json.Unmarshal(body, &all) != nil {
		return nil
	}
	delete(all, "model")
	delete(all, "messages")
	out, err := json.Marshal(all)
	if err != nil {
		return nil
	}
	return out
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func writeError(w http.ResponseWriter, status int, kind, code, message string) {
	writeJSON(w, status, map[string]any{"error": errorObject(kind, code, message)})
}

func errorObject(kind, code, message string) map[string]any {
	var codeOrNull any
	if code != "" {
		codeOrNull = code
	}
	return map[string]any{"message": message, "type": kind, "param": nil, "code": codeOrNull}
}
