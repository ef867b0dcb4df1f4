package providertest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// forms are the ways an event stream may be written.
var forms = map[string]func(string) string{
	"LF":              func(body string) string { return body },
	"CRLF":            func(body string) string { return strings.ReplaceAll(body, "\n", "\r\n") },
	"CR":              func(body string) string { return strings.ReplaceAll(body, "\n", "\r") },
	"byte order mark": func(body string) string { return "\ufeff" + body },
	"comments":        func(body string) string { return ": hi\n\n" + strings.ReplaceAll(body, "\n\n", "\n: x\n\n: ping\n\n") },
}

func (s Subject) recorded(t *testing.T) {
	for _, record := range s.Recorded {
		for form, change := range forms {
			for _, step := range []int{0, 1, 7} {
				sink, answer, err := s.ask(t.Context(), t, Call(), stream(change(record.Stream), step))
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
		subject := s.at(upstream.URL)
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

func (s Subject) lateUsage(t *testing.T) {
	for _, record := range s.Recorded {
		before, after, _ := strings.Cut(record.Stream, record.Complete)
		_, answer, err := s.ask(t.Context(), t, Call(), func(w http.ResponseWriter, r *http.Request) {
			stream(before+record.Complete, 0)(w, r)
			time.Sleep(50 * time.Millisecond)
			stream(after, 0)(w, r)
		})
		if err != nil || !same(answer, record.Want) {
			t.Errorf("%s: %s %v", record.Name, show(answer), err)
		}
	}
}

func (s Subject) thoughts(t *testing.T) {
	some := false
	for _, record := range s.Recorded {
		for _, asked := range []bool{false, true} {
			call, want := Call(), ""
			if call.Thoughts = asked; asked {
				want = record.Thoughts
			}
			some = some || want != ""
			sink, _, err := s.ask(t.Context(), t, call, stream(record.Stream, 0))
			if err != nil || sink.Thoughts.String() != want || sink.Texts.String() != record.Text {
				t.Errorf("%s, asked for %v: %q, %q, %v", record.Name, asked, sink.Thoughts.String(), sink.Texts.String(), err)
			}
		}
	}
	if !some {
		t.Error("no record has thoughts")
	}
}

func (s Subject) longLines(t *testing.T) {
	const limit = 32 << 20
	for _, beyond := range []int{-1, 0, 1} {
		frame := longestLine(s.TextEvent("x")) - 1
		text := strings.Repeat("x", limit+beyond-frame)
		sink, err := s.offline(t, Call(), Offline("text/event-stream", s.TextEvent(text)+s.EndEvents, nil))
		if beyond <= 0 && (err != nil || sink.Count != len(text)) {
			t.Errorf("a line of 32 MiB %+d bytes: %d characters, %v", beyond, sink.Count, err)
		}
		if beyond > 0 && (err == nil || kindOf(t, err) != fanout.ResponseTooLarge || sink.Count != 0) {
			t.Errorf("a line of 32 MiB %+d bytes: %d characters, %v", beyond, sink.Count, err)
		}
	}
}

// offline sends a call to a client without a network: some bodies are large.
func (s Subject) offline(t *testing.T, call *fanout.Call, client *http.Client) (*Sink, error) {
	sink := &Sink{T: t}
	_, err := s.New(provider.Config{BaseURL: "http://offline"}, client).Stream(t.Context(), call, fanout.NewKey(Key), sink)
	checkSecrets(t, err)
	return sink, err
}

func longestLine(stream string) (longest int) {
	for _, line := range strings.Split(stream, "\n") {
		longest = max(longest, len(line))
	}
	return longest
}

// stallBehindTheEnd ends the call's context, as the engine's stall timer does, once the finish
// reason has been read and the stream goes on without a byte.
func (s Subject) stallBehindTheEnd(t *testing.T) {
	for _, record := range s.Recorded {
		before, _, _ := strings.Cut(record.Stream, record.Complete)
		ctx, stop := context.WithCancelCause(t.Context())
		client := Offline("text/event-stream", before+record.Complete, func(exchange context.Context) error {
			stop(fanout.Fail(fanout.TimeoutStall, ""))
			<-exchange.Done()
			return exchange.Err()
		})
		sink := &Sink{T: t}
		answer, err := s.New(provider.Config{BaseURL: "http://offline"}, client).Stream(ctx, Call(), fanout.NewKey(Key), sink)
		if err != nil || answer.FinishReason != record.Want.FinishReason || sink.Texts.String() != record.Text {
			t.Errorf("%s: %v, %q", record.Name, err, sink.Texts.String())
		}
		stop(nil)
	}
}

func (s Subject) sinkEnds(t *testing.T) {
	upstream := httptest.NewServer(stream(s.Recorded[0].Stream, 0))
	defer upstream.Close()
	full := fanout.Fail(fanout.ResponseTooLarge, "")
	sink := &Sink{T: t, OnText: func(string) error { return full }}
	_, err := s.at(upstream.URL).Stream(t.Context(), Call(), fanout.NewKey(""), sink)
	if !errors.Is(err, full) || !strings.HasPrefix(s.Recorded[0].Text, sink.Texts.String()) {
		t.Errorf("%v after %q", err, sink.Texts.String())
	}
}

// Ending is what some text and then the given events come to: a fanout.FinishReason, or the
// fanout.Kind of a failure.
func Ending(t *testing.T, s Subject, events string) any {
	t.Helper()
	upstream := s.New(provider.Config{BaseURL: "http://offline"}, Offline("text/event-stream", s.TextEvent("x")+events, nil))
	answer, err := upstream.Stream(t.Context(), Call(), fanout.NewKey(""), &Sink{T: t})
	if err != nil {
		return kindOf(t, err)
	}
	return answer.FinishReason
}
