package fakeprovider

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/url"
	"time"
)

// Entry is one request as the log tells it. A request that has ended was either finished or
// aborted, never both and never neither.
type Entry struct {
	Model       string          `json:"model"`
	Script      string          `json:"script"` // "unread" when the client left before its request was whole
	Wire        string          `json:"wire"`   // openai, anthropic or gemini
	Stream      bool            `json:"stream"`
	At          time.Time       `json:"at"`
	FirstByteAt *time.Time      `json:"first_byte_at"` // when the response header was written
	AbortedAt   *time.Time      `json:"aborted_at"`    // when the client was seen to leave, if it left early
	Finished    bool            `json:"finished"`      // the script ran to its own end
	EndedAt     *time.Time      `json:"ended_at"`
	KeyHash     string          `json:"key_hash"` // first 12 hex digits of SHA-256 of the key, "" without one
	Early       bool            `json:"early"`    // it came while an earlier Retry-After still bound this key
	Params      json.RawMessage `json:"params"`   // the request without model and messages
}

// Count sums requests. InFlight is those running now, MaxInFlight the most there were at once.
type Count struct {
	Requests    int `json:"requests"`
	Finished    int `json:"finished"`
	Aborted     int `json:"aborted"`
	InFlight    int `json:"in_flight"`
	MaxInFlight int `json:"max_in_flight"`
}

// Stats is what the server has seen since it began or was reset. Unlike the log it forgets nothing.
type Stats struct {
	Count
	Scripts map[string]Count `json:"scripts"`
	// Early counts requests that came while an earlier Retry-After still bound their key.
	Early int `json:"early"`
	// Connections are known of servers that were Configured; they outlive a reset.
	ConnectionsOpen   int `json:"connections_open"`
	ConnectionsOpened int `json:"connections_opened"`
}

// logLimit bounds the log; the oldest half goes when it is reached, so that a long load test does
// not fill the memory.
const logLimit = 100_000

// modelState is what a script remembers from request to request: one for each model as it was
// written, options and all, so that an option nobody reads gives a test a state of its own.
type modelState struct {
	requests int
	since    time.Time            // of the first request
	perKey   map[string]int       // requests by key hash
	held     int                  // places a crowded script gave out
	windows  map[string]window    // of a metered script, by key hash
	closed   map[string]time.Time // until when a window script refuses, by key hash
}

// Log returns a copy of the log, oldest first.
func (s *Server) Log() []Entry { return s.logOf(nil) }

// logOf filters by model= and script=.
func (s *Server) logOf(query url.Values) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Entry, 0, len(s.log))
	for _, e := range s.log {
		if query.Has("model") && query.Get("model") != e.Model || query.Has("script") && query.Get("script") != e.Script {
			continue
		}
		out = append(out, *e)
	}
	return out
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Stats{Count: s.total, Scripts: map[string]Count{}, Early: s.early, ConnectionsOpen: s.open, ConnectionsOpened: s.opened}
	for name, count := range s.scripts {
		out.Scripts[name] = *count
	}
	return out
}

// Reset empties the log, the counts and what scripts remember. Requests still running are no
// longer told of.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.total, s.early = nil, Count{}, 0
	s.running, s.scripts = map[*Entry]bool{}, map[string]*Count{}
	s.models, s.binding = map[string]*modelState{}, map[string]time.Time{}
}

// begin puts a request into the log and says how many for its model there were.
func (s *Server) begin(e Entry) (kept *Entry, nth int) {
	e.At = time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Early = e.At.Before(s.binding[e.KeyHash])
	if e.Early {
		s.early++
	}
	if len(s.log) >= logLimit {
		s.log = append([]*Entry(nil), s.log[logLimit/2:]...)
	}
	s.log = append(s.log, &e)
	s.running[&e] = true
	if s.scripts[e.Script] == nil {
		s.scripts[e.Script] = &Count{}
	}
	for _, count := range []*Count{&s.total, s.scripts[e.Script]} {
		count.Requests++
		count.InFlight++
		count.MaxInFlight = max(count.MaxInFlight, count.InFlight)
	}
	model := s.model(e.Model)
	if model.requests == 0 {
		model.since = e.At
	}
	model.requests++
	model.perKey[e.KeyHash]++
	return &e, model.requests
}

// model is the state of a model; the caller holds mu.
func (s *Server) model(name string) *modelState {
	if s.models[name] == nil {
		s.models[name] = &modelState{perKey: map[string]int{}, windows: map[string]window{}, closed: map[string]time.Time{}}
	}
	return s.models[name]
}

func (s *Server) firstByte(e *Entry) {
	now := time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.FirstByteAt == nil {
		e.FirstByteAt = &now
	}
}

// aborted notes that the client left, unless the request has ended.
func (s *Server) aborted(e *Entry) {
	now := time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.AbortedAt == nil && e.EndedAt == nil {
		e.AbortedAt = &now
	}
}

func (s *Server) ended(e *Entry) {
	now := time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.EndedAt, e.Finished = &now, e.AbortedAt == nil
	if !s.running[e] { // there was a reset meanwhile
		return
	}
	delete(s.running, e)
	for _, count := range []*Count{&s.total, s.scripts[e.Script]} {
		count.InFlight--
		if e.Finished {
			count.Finished++
		} else {
			count.Aborted++
		}
	}
}

// remember runs read and write of a model's state under the server's lock.
func (s *session) remember(do func(*modelState)) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	do(s.server.model(s.asked.model))
}

// bind notes a Retry-After given to the request's key, for Early.
func (s *session) bind(wait time.Duration) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(s.server.binding, func(_ string, until time.Time) bool { return now.After(until) })
	if until := now.Add(wait); until.After(s.server.binding[s.entry.KeyHash]) {
		s.server.binding[s.entry.KeyHash] = until
	}
}

func hashOf(key string) string {
	if key == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])[:12]
}
