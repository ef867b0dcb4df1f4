package httpapi_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/httpapi"
)

// phases are models that stay in one phase of a call.
var phases = map[string]string{
	"before the headers":     "no-headers",
	"before the first token": "slow-first-token",
	"in the stream":          "stall",
	"while text flows":       "ok?chunks=100000&delay_ms=1",
}

func TestTheDeadlineEndsACallInEveryPhase(t *testing.T) {
	s := newService(t)
	calls := make([]callSpec, 0, len(phases))
	for _, model := range phases {
		calls = append(calls, call(fmt.Sprintf("c%d", len(calls)), model))
	}
	for id, got := range s.run(body(t, "r", 300, calls...)) {
		if got.last.Kind != fanout.Deadline {
			t.Errorf("%s: %+v", id, got.last)
		}
	}
	s.aborted(len(calls))
}

func TestClosingTheConnectionStopsEveryPhase(t *testing.T) {
	for phase, model := range phases {
		t.Run(phase, func(t *testing.T) {
			s := newService(t)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			response := s.post(ctx, body(t, "r", 60_000, call("A", model), call("B", model)))
			defer func() { _ = response.Body.Close() }()
			s.wait("two calls upstream", func() bool { return len(s.fake.Log()) == 2 })
			leave()
			s.aborted(2)
			s.wait("the end of the fan-out", func() bool { return s.engine.InFlight() == 0 })
		})
	}
}

func TestDeleteStopsOneCallOrTheFanOut(t *testing.T) {
	remove := func(s *service, path string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	for phase, model := range phases {
		t.Run(phase, func(t *testing.T) {
			s := newService(t)
			ended := make(chan map[string]outcome)
			go func() {
				ended <- s.run(body(t, "run-1", 60_000, call("A", model), call("B", model), call("C", "ok?delay_ms=30")))
			}()
			s.wait("three calls upstream", func() bool { return len(s.fake.Log()) == 3 })
			for path, want := range map[string]int{
				"/fanout/other":                                404,
				"/fanout/run-1/calls/Z":                        404,
				"/fanout/run-1?reason=because":                 400,
				"/fanout/run-1/calls/A?reason=stop.superseded": 204,
			} {
				if got := remove(s, path); got != want {
					t.Errorf("DELETE %s: %d, want %d", path, got, want)
				}
			}
			s.aborted(1)
			if got := remove(s, "/fanout/run-1/calls/B"); got != 204 {
				t.Errorf("DELETE of B: %d", got)
			}
			got := <-ended
			for id, want := range map[string]string{"A": "stop.superseded", "B": "stop.user", "C": "stop"} {
				if ending := got[id].last.FinishReason + string(got[id].last.Kind); ending != want {
					t.Errorf("%s: %s, want %s", id, ending, want)
				}
			}
			if got := remove(s, "/fanout/run-1"); got != 404 {
				t.Errorf("DELETE after the end: %d", got)
			}
		})
	}
}

// slowly posts calls that say more than fits into the sockets, over a connection whose reader
// decides when it reads. Its window is larger than a packet of loopback: a smaller one opens only
// when the sender asks, every few seconds.
func (s *service) slowly(fields map[string]any) *net.TCPConn {
	s.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(s.t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(256 << 10)
	request := bodyWith(s.t, fields, call("A", "ok?chunks=10000000&delay_ms=0"), call("B", "endless"), call("C", "endless"), call("D", "endless"))
	_, err = fmt.Fprintf(conn, "POST /fanout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(request), request)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// upstreamsEnd waits until every call upstream is over.
func (s *service) upstreamsEnd() {
	s.t.Helper()
	s.wait("the end of every call upstream", func() bool {
		log := s.fake.Log()
		for _, entry := range log {
			if entry.EndedAt == nil {
				return false
			}
		}
		return len(log) == 4
	})
}

func TestAReaderThatTakesNothingIsCutOff(t *testing.T) {
	for _, streamed := range []bool{true, false} {
		t.Run(fmt.Sprintf("stream %v", streamed), func(t *testing.T) {
			s := newService(t)
			s.slowly(map[string]any{"stream": streamed})
			s.upstreamsEnd()
			s.wait("the end of the fan-out", func() bool { return s.engine.InFlight() == 0 })
			if outcome := s.ends.last(); outcome != engine.OutcomeSlowReader {
				t.Errorf("the fan-out ended as %q", outcome)
			}
		})
	}
}

func TestAReaderThatWakesUpInTimeStillGetsTheEnd(t *testing.T) {
	s := newService(t, func(config *engine.Config, options *httpapi.Options) {
		config.MaxAnswer = 64 << 20 // that nothing else ends a call
		options.Patience = 3 * time.Second
	})
	conn := s.slowly(nil)
	s.upstreamsEnd() // the first stage
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	outcomes := s.read(response)
	for _, id := range []string{"A", "B", "C", "D"} {
		if got := outcomes[id]; got.last.Kind != fanout.SlowReader || got.text == "" {
			t.Errorf("%s ended as %+v", id, got.last)
		}
	}
	if outcome := s.ends.last(); outcome != engine.OutcomeSlowReader {
		t.Errorf("the fan-out ended as %q", outcome)
	}
}
