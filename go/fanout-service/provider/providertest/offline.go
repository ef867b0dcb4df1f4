package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// Offline returns a client without a network: every request is answered 200 with body, and behind it
// comes what then returns, io.EOF when then is nil. All of body has been read when then is called.
func Offline(contentType, body string, then func(exchange context.Context) error) *http.Client {
	return answering(contentType, func(r *http.Request) io.Reader {
		source := strings.NewReader(body)
		if then == nil {
			return source
		}
		return io.MultiReader(source, readerFunc(func([]byte) (int, error) { return 0, then(r.Context()) }))
	})
}

func answering(contentType string, body func(*http.Request) io.Reader) *http.Client {
	return &http.Client{Transport: roundTripper(func(r *http.Request) *http.Response {
		return &http.Response{
			StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {contentType}},
			Body: io.NopCloser(body(r)),
		}
	})}
}

type roundTripper func(*http.Request) *http.Response

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Fuzz feeds a subject streams and whole answers of any bytes. Whatever they are, it must not
// panic, must pass on valid text alone, and must end with a finish reason or a *fanout.Failure,
// however the stream was cut into reads.
func Fuzz(f *testing.F, subject Subject) {
	for _, record := range subject.Recorded {
		f.Add([]byte(record.Stream), uint8(7))
	}
	for _, record := range subject.Whole {
		f.Add([]byte(record.Body), uint8(0))
	}
	for _, object := range []string{`{"error":{"code":429,"details":[{"retryDelay":"3s"}]}}`, `{"error":"it broke"}`} {
		f.Add([]byte(subject.ErrorEvent(json.RawMessage(object))), uint8(1))
	}
	f.Fuzz(func(t *testing.T, body []byte, step uint8) {
		for _, whole := range []bool{false, true} {
			want := subject.fuzzed(t, body, len(body)+1, whole)
			if got := subject.fuzzed(t, body, int(step)%16+1, whole); got != want {
				t.Errorf("in steps of %d: %+v, at once: %+v", step, got, want)
			}
		}
	})
}

// outcome is what must not depend on how a body was cut into reads.
type outcome struct {
	text, thoughts, answer, failure string
}

func (s Subject) fuzzed(t *testing.T, body []byte, step int, whole bool) outcome {
	contentType := "text/event-stream"
	if whole {
		contentType = "application/json"
	}
	client := answering(contentType, func(*http.Request) io.Reader { return &stepReader{body, step} })
	call := Call()
	call.Whole, call.Thoughts = whole, true
	sink := &Sink{T: t}
	answer, err := s.New(provider.Config{BaseURL: "http://offline"}, client).Stream(t.Context(), call, fanout.NewKey(""), sink)
	out := outcome{sink.Texts.String(), sink.Thoughts.String(), show(answer), ""}
	var failure *fanout.Failure
	switch {
	case errors.As(err, &failure):
		out.failure = failure.Error()
	case err != nil:
		t.Errorf("%v is no *fanout.Failure", err)
	case answer.FinishReason == "" || out.text == "":
		t.Errorf("complete without a finish reason or a text: %+v", out)
	}
	return out
}

type stepReader struct {
	rest []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:min(r.step, len(r.rest))])
	r.rest = r.rest[n:]
	return n, nil
}

// Benchmark measures what a delta costs from the body's bytes to the sink: one long answer of b.N
// events.
func Benchmark(b *testing.B, subject Subject, event, end string) {
	client := answering("text/event-stream", func(*http.Request) io.Reader {
		return io.MultiReader(&repeated{[]byte(event), b.N, nil}, strings.NewReader(end))
	})
	upstream := subject.New(provider.Config{BaseURL: "http://offline"}, client)
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	var counted counter
	_, err := upstream.Stream(context.Background(), Call(), fanout.NewKey(""), &counted)
	if err != nil || int(counted) < b.N {
		b.Errorf("%d of %d deltas, %v", int(counted), b.N, err)
	}
}

// repeated reads as n copies of an event, one at a time, like a body whose deltas come one by one.
type repeated struct {
	event []byte
	n     int
	rest  []byte
}

func (r *repeated) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.n == 0 {
			return 0, io.EOF
		}
		r.n--
		r.rest = r.event
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// counter counts the pieces of text.
type counter int

func (*counter) Connected()                {}
func (*counter) Allowed(fanout.Allowance)  {}
func (*counter) Progress(bool)             {}
func (c *counter) Text([]byte, int) error  { *c++; return nil }
func (*counter) Thought([]byte, int) error { return nil }
