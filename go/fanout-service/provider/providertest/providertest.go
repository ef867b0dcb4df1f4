// Package providertest is the conformance every provider must show: the whole status table, its
// recorded streams in every form and cut at every byte, errors without secrets, and a
// cancellation that reaches the upstream. It is one file on purpose: the list of what a provider owes.
package providertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// Key is the key that subjects are given; Canary is in every upstream error. Neither may be seen
// in anything a provider returns.
const (
	Key    = "sk-canary-key-7f3a"
	Canary = "canary-words-of-the-upstream"
)

// Loopback returns a guard that allows the servers of tests.
func Loopback() *provider.Guard {
	return provider.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, nil)
}

// Recorded is a whole answer as a provider streams it, with LF line ends.
type Recorded struct {
	Name     string
	Stream   string
	Text     string
	Want     fanout.Answer
	Complete string // the stream's shortest beginning, up to and including this, that is complete
}

// Subject is a provider under test.
type Subject struct {
	New      func(baseURL string) fanout.Provider
	Recorded []Recorded
	// ErrorEvent writes an error object, as the provider sends it inside a stream.
	ErrorEvent func(object json.RawMessage) string
}

// Run tests a subject.
func Run(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("recorded streams are read in every form", subject.recorded)
	t.Run("a stream cut at any byte is incomplete until its finish reason", subject.cuts)
	t.Run("every status has its kind", subject.statuses)
	t.Run("error bodies refine the kind", subject.errorBodies)
	t.Run("errors inside a stream have their kind", subject.errorEvents)
	t.Run("an endless error body is not read to its end", subject.endlessError)
	t.Run("redirects are not followed", subject.redirect)
	t.Run("nobody there is a connection failure", subject.refused)
	t.Run("a cancel reaches the upstream in every phase", subject.cancels)
}

// Sink records what a provider reports.
type Sink struct {
	T     testing.TB
	Texts strings.Builder
	Count int
	OnRun func(text string) error // called for every piece; may be nil
}

// Connected implements fanout.Sink.
func (s *Sink) Connected() {}

// Progress implements fanout.Sink.
func (s *Sink) Progress(bool) {}

// Allowed implements fanout.Sink.
func (s *Sink) Allowed(fanout.Allowance) {}

// Thought implements fanout.Sink.
func (s *Sink) Thought([]byte, int) error { return nil }

// Text implements fanout.Sink.
func (s *Sink) Text(escaped []byte, characters int) error {
	var plain string
	if err := json.Unmarshal([]byte(`"`+string(escaped)+`"`), &plain); err != nil || plain == "" {
		s.T.Errorf("piece %q: %v", escaped, err)
	}
	s.Texts.WriteString(plain)
	s.Count += characters
	if s.OnRun != nil {
		return s.OnRun(plain)
	}
	return nil
}

// Call is the call that subjects are sent.
func Call() *fanout.Call {
	return &fanout.Call{
		ID: "A", Target: fanout.Target{Provider: "test", Model: "model-1"}, Timeouts: fanout.DefaultTimeouts,
		Messages: []fanout.Message{{Role: "user", Content: "Why?"}},
	}
}

// ask sends one call to an upstream and checks that nothing secret comes back.
func (s Subject) ask(ctx context.Context, t testing.TB, handler http.HandlerFunc) (*Sink, fanout.Answer, error) {
	t.Helper()
	upstream := httptest.NewServer(handler)
	defer upstream.Close()
	sink := &Sink{T: t}
	answer, err := s.New(upstream.URL).Stream(ctx, Call(), fanout.NewKey(Key), sink)
	checkSecrets(t, err)
	return sink, answer, err
}

func checkSecrets(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, secret := range []string{Key, Canary, "127.0.0.1"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error tells %q: %v", secret, err)
		}
	}
}

func kindOf(t testing.TB, err error) fanout.Kind {
	t.Helper()
	var failure *fanout.Failure
	if !errors.As(err, &failure) {
		t.Fatalf("%v is no *fanout.Failure", err)
	}
	return failure.Kind
}

func stream(body string, step int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for rest := body; rest != ""; {
			n := len(rest)
			if step > 0 {
				n = min(step, n)
			}
			_, _ = io.WriteString(w, rest[:n])
			_ = http.NewResponseController(w).Flush()
			rest = rest[n:]
		}
	}
}

func (s Subject) recorded(t *testing.T) {
	forms := map[string]func(string) string{
		"LF":              func(body string) string { return body },
		"CRLF":            func(body string) string { return strings.ReplaceAll(body, "\n", "\r\n") },
		"CR":              func(body string) string { return strings.ReplaceAll(body, "\n", "\r") },
		"byte order mark": func(body string) string { return "\ufeff" + body },
		"comments":        func(body string) string { return ": hi\n\n" + strings.ReplaceAll(body, "\n\n", "\n: x\n\n: ping\n\n") },
	}
	for _, record := range s.Recorded {
		for form, change := range forms {
			for _, step := range []int{0, 1, 7} {
				sink, answer, err := s.ask(t.Context(), t, stream(change(record.Stream), step))
				if err != nil || !same(answer, record.Want) || sink.Texts.String() != record.Text {
					t.Errorf("%s, %s, steps of %d: %q %s %v", record.Name, form, step, sink.Texts.String(), show(answer), err)
				}
			}
		}
	}
}

func (s Subject) cuts(t *testing.T) {
	for _, record := range s.Recorded {
		before, _, _ := strings.Cut(record.Stream, record.Complete)
		complete := len(before) + len(record.Complete)
		cut := 0
		upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			stream(record.Stream[:cut], 0)(w, r)
		}))
		subject := s.New(upstream.URL)
		for ; cut <= len(record.Stream); cut++ {
			sink := &Sink{T: t}
			_, err := subject.Stream(t.Context(), Call(), fanout.NewKey(Key), sink)
			switch {
			case cut >= complete && err != nil:
				t.Errorf("%s, cut at %d: %v, but it was complete", record.Name, cut, err)
			case cut < complete && (err == nil || kindOf(t, err) != fanout.Incomplete):
				t.Errorf("%s, cut at %d: %v, want incomplete", record.Name, cut, err)
			case !strings.HasPrefix(record.Text, sink.Texts.String()):
				t.Errorf("%s, cut at %d: %q is no beginning of the answer", record.Name, cut, sink.Texts.String())
			}
		}
		upstream.Close()
	}
}

func refusing(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func (s Subject) statuses(t *testing.T) {
	for status := 201; status < 600; status++ {
		_, _, err := s.ask(t.Context(), t, refusing(status, "application/json", `{"error":{"message":"`+Canary+" "+Key+`"}}`))
		if kind := kindOf(t, err); kind != fanout.StatusKind(status) {
			t.Errorf("%d: %s, want %s", status, kind, fanout.StatusKind(status))
		}
		var failure *fanout.Failure
		if errors.As(err, &failure) && failure.Status != status {
			t.Errorf("%d: reported as %d", status, failure.Status)
		}
		if status == http.StatusTooManyRequests && failure.RetryAfter != 3*time.Second {
			t.Errorf("429: Retry-After read as %v", failure.RetryAfter)
		}
	}
}

func (s Subject) errorBodies(t *testing.T) {
	file := golden[struct {
		Rows []struct {
			Name        string      `json:"name"`
			Status      int         `json:"status"`
			ContentType string      `json:"content_type"`
			Body        string      `json:"body"`
			Kind        fanout.Kind `json:"kind"`
		} `json:"rows"`
	}](t, "upstream_errors.json")
	for _, row := range file.Rows {
		_, _, err := s.ask(t.Context(), t, refusing(row.Status, row.ContentType, row.Body))
		if kind := kindOf(t, err); kind != row.Kind {
			t.Errorf("%s: %s, want %s", row.Name, kind, row.Kind)
		}
	}
}

func (s Subject) errorEvents(t *testing.T) {
	file := golden[struct {
		Rows []struct {
			Name string          `json:"name"`
			Data json.RawMessage `json:"data"`
			Kind fanout.Kind     `json:"kind"`
		} `json:"rows"`
	}](t, "upstream_error_events.json")
	for _, row := range file.Rows {
		var object bytes.Buffer // on one line
		if err := json.Compact(&object, row.Data); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.ask(t.Context(), t, stream(s.ErrorEvent(object.Bytes()), 0))
		if kind := kindOf(t, err); kind != row.Kind {
			t.Errorf("%s: %s, want %s", row.Name, kind, row.Kind)
		}
	}
}

func (s Subject) endlessError(t *testing.T) {
	_, _, err := s.ask(t.Context(), t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 8<<10)); err != nil {
				return
			}
		}
	})
	if kind := kindOf(t, err); kind != fanout.InvalidRequest {
		t.Errorf("%s, want invalid_request", kind)
	}
}

func (s Subject) redirect(t *testing.T) {
	visited := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited = true }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		_, _, err := s.ask(t.Context(), t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, status)
		})
		if kind := kindOf(t, err); kind != fanout.BadUpstreamResponse {
			t.Errorf("%d: %s, want bad_upstream_response", status, kind)
		}
	}
	if visited {
		t.Error("a redirect was followed")
	}
}

func (s Subject) refused(t *testing.T) {
	upstream := httptest.NewServer(http.NotFoundHandler())
	upstream.Close()
	_, err := s.New(upstream.URL).Stream(t.Context(), Call(), fanout.NewKey(Key), &Sink{T: t})
	checkSecrets(t, err)
	if kind := kindOf(t, err); kind != fanout.Connection {
		t.Errorf("%s, want connection", kind)
	}
}

func (s Subject) cancels(t *testing.T) {
	half, _, _ := strings.Cut(s.Recorded[0].Stream, s.Recorded[0].Complete)
	for _, phase := range []string{"before the headers", "before the first token", "in the stream", "in an error body"} {
		t.Run(phase, func(t *testing.T) {
			arrived, left := make(chan struct{}), make(chan struct{})
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-arrived
				cancel(fanout.Fail(fanout.StopUser, ""))
			}()
			_, _, err := s.ask(ctx, t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch phase {
				case "before the first token":
					stream(": ping\n\n", 0)(w, r)
				case "in the stream":
					stream(half, 0)(w, r)
				case "in an error body":
					w.WriteHeader(http.StatusInternalServerError)
					_ = http.NewResponseController(w).Flush()
				}
				close(arrived)
				<-r.Context().Done()
				close(left)
			})
			if kind := kindOf(t, err); kind != fanout.StopUser {
				t.Errorf("%s, want the cause of the cancel", kind)
			}
			select {
			case <-left:
			case <-time.After(10 * time.Second):
				t.Error("the upstream never saw the client leave")
			}
		})
	}
}

// golden reads a file of the contract.
func golden[T any](t *testing.T, name string) T {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../api/golden", name))
	if err != nil {
		t.Fatal(err)
	}
	var value T
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

func same(a, b fanout.Answer) bool { return show(a) == show(b) }

func show(a fanout.Answer) string {
	out, err := json.Marshal(a)
	if err != nil {
		return err.Error()
	}
	return string(out)
}
