// Package providertest is the conformance every provider must show: the whole status table, its
// recorded answers in every form and cut at every byte, errors without secrets, and a cancellation
// that reaches the upstream. Run is the list of what a provider owes.
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

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// Key is the key that subjects are given; Canary is in every upstream error. Neither may be seen
// in anything a provider returns.
const (
	Key    = "sk-canary-key-7f3a"
	Canary = "canary-words-of-the-upstream"
)

// Recorded is a whole answer as a provider streams it, with LF line ends.
type Recorded struct {
	Name     string
	Stream   string
	Text     string
	Thoughts string
	Want     fanout.Answer
	Complete string // the stream's shortest beginning, up to and including this, that is complete
}

// Whole is an answer in one piece.
type Whole struct {
	Name     string
	Body     string
	Text     string
	Thoughts string
	Want     fanout.Answer
}

// Subject is a provider under test.
type Subject struct {
	New      func(config provider.Config, client *http.Client) *provider.Endpoint
	Recorded []Recorded
	Whole    []Whole
	// TextEvent writes an event with text, which needs no escapes, and no end of the answer.
	TextEvent func(text string) string
	// EndEvents write what ends an answer.
	EndEvents string
	// ErrorEvent writes an error object, as the provider sends it inside a stream.
	ErrorEvent func(object json.RawMessage) string

	client *http.Client
}

// Run tests a subject.
func Run(t *testing.T, subject Subject) {
	t.Helper()
	subject.client = Client(t)
	t.Run("recorded streams are read in every form", subject.recorded)
	t.Run("a stream cut at any byte is incomplete until its finish reason", subject.cuts)
	t.Run("usage may come late", subject.lateUsage)
	t.Run("thoughts come apart, and only where they are asked for", subject.thoughts)
	t.Run("a line of 32 MiB is read, a longer one is an answer too large", subject.longLines)
	t.Run("a stall behind the finish reason takes nothing away", subject.stallBehindTheEnd)
	t.Run("the sink ends an attempt", subject.sinkEnds)
	t.Run("answers in one piece are read", subject.wholes)
	t.Run("an answer in one piece counts only whole", subject.wholeCuts)
	t.Run("an answer in one piece may be too large, too", subject.wholeTooLarge)
	t.Run("every status has its kind", subject.statuses)
	t.Run("a provider may say that trying again is of no use", subject.noUse)
	t.Run("error bodies refine the kind", subject.errorBodies)
	t.Run("errors inside a stream have their kind", subject.errorEvents)
	t.Run("an error written into the stream as it is has its kind", subject.strayErrors)
	t.Run("a refusal says when to come again", subject.retryAfters)
	t.Run("too many calls at once are told from too many a minute", subject.crowded)
	t.Run("rate limits are told", subject.allowances)
	t.Run("what is no answer of the form asked for is refused", subject.wrongForms)
	t.Run("an endless error body is not read to its end", subject.endlessError)
	t.Run("redirects are not followed", subject.redirect)
	t.Run("where there is no key none is sent", subject.noKey)
	t.Run("nobody there is a connection failure", subject.refused)
	t.Run("a cancel reaches the upstream in every phase", subject.cancels)
}

// Client returns a client for servers on loopback, which trusts the given TLS servers.
func Client(t testing.TB, servers ...*httptest.Server) *http.Client {
	client := provider.NewClient(Loopback())
	transport, _ := client.Transport.(*http.Transport)
	for _, server := range servers {
		// The same settings serve every dial, and none has been made yet.
		transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// Loopback returns a guard that allows the servers of tests.
func Loopback() *provider.Guard {
	return provider.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, nil)
}

// Sink records what a provider reports.
type Sink struct {
	T         testing.TB
	Texts     strings.Builder
	Thoughts  strings.Builder
	Count     int // characters of Texts
	Allowance *fanout.Allowance
	Moments   []string                // "connected", "progress", "generated": what came, without repeats
	OnText    func(text string) error // called for every piece; may be nil
}

func (s *Sink) moment(name string) {
	if n := len(s.Moments); n == 0 || s.Moments[n-1] != name {
		s.Moments = append(s.Moments, name)
	}
}

// Connected implements fanout.Sink.
func (s *Sink) Connected() {
	if len(s.Moments) > 0 {
		s.T.Errorf("connected after %v", s.Moments)
	}
	s.moment("connected")
}

// Progress implements fanout.Sink.
func (s *Sink) Progress(generated bool) {
	if generated {
		s.moment("generated")
	} else {
		s.moment("progress")
	}
}

// Allowed implements fanout.Sink.
func (s *Sink) Allowed(allowance fanout.Allowance) {
	if s.Allowance != nil || s.Count > 0 {
		s.T.Error("the allowance came twice, or after text")
	}
	s.Allowance = &allowance
}

// Thought implements fanout.Sink.
func (s *Sink) Thought(escaped []byte, _ int) error {
	s.Thoughts.WriteString(s.plain(escaped))
	return nil
}

// Text implements fanout.Sink.
func (s *Sink) Text(escaped []byte, characters int) error {
	plain := s.plain(escaped)
	s.Texts.WriteString(plain)
	s.Count += characters
	if s.OnText != nil {
		return s.OnText(plain)
	}
	return nil
}

func (s *Sink) plain(escaped []byte) (plain string) {
	if len(escaped) > 1<<20 && bytes.IndexByte(escaped, '\\') < 0 {
		return string(escaped) // decoding the largest lines takes seconds with the race detector
	}
	if err := json.Unmarshal([]byte(`"`+string(escaped)+`"`), &plain); err != nil || plain == "" {
		s.T.Errorf("a piece of %d bytes is no JSON string, or empty: %v", len(escaped), err)
	}
	return plain
}

// Call is the call that subjects are sent.
func Call() *fanout.Call {
	return &fanout.Call{
		ID: "A", Target: fanout.Target{Provider: "test", Model: "model-1"}, Timeouts: fanout.DefaultTimeouts,
		Messages: []fanout.Message{{Role: "user", Content: "Why?"}},
	}
}

func wholeCall() *fanout.Call {
	call := Call()
	call.Whole = true
	return call
}

func (s Subject) at(url string) *provider.Endpoint {
	return s.New(provider.Config{Name: "test", BaseURL: url}, s.client)
}

// ask sends one call to an upstream and checks that nothing secret comes back.
func (s Subject) ask(ctx context.Context, t testing.TB, call *fanout.Call, handler http.HandlerFunc) (*Sink, fanout.Answer, error) {
	t.Helper()
	upstream := httptest.NewServer(handler)
	defer upstream.Close()
	sink := &Sink{T: t}
	answer, err := s.at(upstream.URL).Stream(ctx, call, fanout.NewKey(Key), sink)
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

func failureOf(t testing.TB, err error) *fanout.Failure {
	t.Helper()
	var failure *fanout.Failure
	if !errors.As(err, &failure) {
		t.Fatalf("%v is no *fanout.Failure", err)
	}
	return failure
}

func kindOf(t testing.TB, err error) fanout.Kind {
	t.Helper()
	return failureOf(t, err).Kind
}

// stream writes an event stream, step bytes at a time, or at once when step is 0.
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

// reply writes a whole response; header holds names and values in turn.
func reply(status int, contentType, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
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
