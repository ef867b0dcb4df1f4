package fakeprovider

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A load test is about what it loads: a plain piece must leave no garbage here.
func TestAPlainPieceCostsNoAllocation(t *testing.T) {
	for _, speaks := range []wire{&openAI{}, &anthropic{}, &gemini{}} {
		recorder := httptest.NewRecorder()
		recorder.Body = nil
		server := New()
		s := &session{
			server: server, entry: &Entry{}, w: recorder, r: httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil),
			control: http.NewResponseController(recorder), wire: speaks, asked: question{model: "ok", stream: true}, framing: plainFraming(), cutAt: -1,
		}
		s.open()
		s.say("first")
		if allocations := testing.AllocsPerRun(100, func() { s.say(" word") }); allocations != 0 {
			t.Errorf("%s: %v allocations a piece", speaks.name(), allocations)
		}
	}
}

// BenchmarkPieces counts the CPU of a piece with its share of the socket, the client's included.
func BenchmarkPieces(b *testing.B) {
	server := httptest.NewServer(New())
	defer server.Close()
	for b.Loop() {
		response, err := http.Post(server.URL+"/v1/chat/completions", "application/json",
			strings.NewReader(`{"model":"ok?delay_ms=0&chunks=1000","stream":true,"messages":[]}`))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/piece")
}
