package providertest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	fanout "rex/fanout-service"
)

// cancels stops a call in every phase, over HTTP/1.1 and HTTP/2, and waits for the upstream to
// notice.
func (s Subject) cancels(t *testing.T) {
	half, _, _ := strings.Cut(s.Recorded[0].Stream, s.Recorded[0].Complete)
	body := s.Whole[0].Body
	for _, phase := range []struct {
		name  string
		call  *fanout.Call
		begin http.HandlerFunc
	}{
		{"before the headers", Call(), func(http.ResponseWriter, *http.Request) {}},
		{"before the first token", Call(), stream(": ping\n\n", 0)},
		{"in the stream", Call(), stream(half, 0)},
		{"before the headers of an answer in one piece", wholeCall(), func(http.ResponseWriter, *http.Request) {}},
		{"in an answer in one piece", wholeCall(), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, body[:len(body)/2])
			_ = http.NewResponseController(w).Flush()
		}},
		{"in an error body", Call(), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_ = http.NewResponseController(w).Flush()
		}},
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(phase.name+", "+protocol, func(t *testing.T) {
				s.cancel(t, protocol, phase.call, phase.begin)
			})
		}
	}
}

func (s Subject) cancel(t *testing.T, protocol string, call *fanout.Call, begin http.HandlerFunc) {
	arrived, left := make(chan struct{}), make(chan struct{})
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Proto != protocol {
			t.Errorf("spoke %s", r.Proto)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		begin(w, r)
		close(arrived)
		<-r.Context().Done()
		close(left)
	}))
	if upstream.EnableHTTP2 = protocol == "HTTP/2.0"; upstream.EnableHTTP2 {
		upstream.StartTLS()
		s.client = Client(t, upstream)
	} else {
		upstream.Start()
	}
	defer upstream.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(fanout.Fail(fanout.StopUser, ""))
	}()
	sink := &Sink{T: t}
	_, err := s.at(upstream.URL).Stream(ctx, call, fanout.NewKey(Key), sink)
	checkSecrets(t, err)
	if kind := kindOf(t, err); kind != fanout.StopUser {
		t.Errorf("%s, want the cause of the cancel", kind)
	}
	if len(sink.Moments) == 0 || sink.Moments[0] != "connected" {
		t.Errorf("reported %v", sink.Moments)
	}
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the upstream never saw the client leave")
	}
}
