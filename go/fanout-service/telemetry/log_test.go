package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/telemetry"
)

// logged is what a log says of a fan-out, line by line.
func logged(t *testing.T, observeWith func(log *slog.Logger)) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	observeWith(slog.New(slog.NewJSONHandler(&out, nil)))
	if strings.Contains(out.String(), canary) {
		t.Errorf("the log tells content: %s", out.String())
	}
	var lines []map[string]any
	for line := range strings.Lines(out.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, fields)
	}
	return lines
}

func TestEveryAttemptCallAndFanoutIsALineWithoutContent(t *testing.T) {
	failed := refused(fanout.Overloaded, 529)
	failed.Wait = 250 * time.Millisecond
	lines := logged(t, func(log *slog.Logger) {
		observe(t.Context(), telemetry.NewLog(log), newRequest("gemini-x", 1), failed, answered())
	})
	same := map[string]any{"request_id": "req-1", "fanout_id": "run-1", "workspace": "w"}
	of := map[string]any{"call": "A", "provider": "google", "model": "gemini-x"}
	want := []map[string]any{
		{"msg": "attempt", "level": "WARN", "attempt": 1.0, "reason": "first", "key": "2", "outcome": "overloaded", "status": 529.0, "latency_ms": 9.0, "wait_ms": 250.0},
		{
			"msg": "attempt", "level": "INFO", "attempt": 2.0, "reason": "retry", "key": "2", "outcome": "finished", "latency_ms": 80.0,
			"queue_ms": 5.0, "connect_ms": 4.0, "first_token_ms": 40.0, "input_tokens": 7.0, "output_tokens": 12.0,
		},
		{"msg": "call", "level": "INFO", "attempts": 2.0, "outcome": "finished", "latency_ms": 89.0, "cache": "bypass", "input_tokens": 7.0, "output_tokens": 12.0},
		{"msg": "fanout", "level": "INFO", "calls": 1.0, "finished": 1.0, "failed": 0.0, "outcome": "done", "latency_ms": 0.0},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d", len(lines), len(want))
	}
	for i, line := range lines {
		for name, value := range same {
			want[i][name] = value
		}
		for name, value := range of {
			if line["msg"] != "fanout" {
				want[i][name] = value
			}
		}
		delete(line, "time")
		for name, value := range want[i] {
			if line[name] != value {
				t.Errorf("line %d: %s is %v, want %v", i, name, line[name], value)
			}
			delete(line, name)
		}
		if len(line) > 0 {
			t.Errorf("line %d tells more: %v", i, line)
		}
	}
}

func TestOnlyWhatTheProviderIsAtFaultForIsAWarning(t *testing.T) {
	asked := refused(fanout.TimeoutFirstToken, 0)
	asked.Failure.Blameless = true // the client gave it little time
	lines := logged(t, func(log *slog.Logger) {
		o := telemetry.NewLog(log)
		observe(t.Context(), o, newRequest("m", 1), refused(fanout.TimeoutFirstToken, 0))
		observe(t.Context(), o, newRequest("m", 1), asked)
	})
	var levels []any
	for _, line := range lines {
		levels = append(levels, line["level"])
	}
	if want := []any{"WARN", "WARN", "INFO", "INFO", "INFO", "INFO"}; !slices.Equal(levels, want) {
		t.Errorf("%v, want %v", levels, want)
	}
}

// sink counts writes and keeps what was written; it blocks while held.
type sink struct {
	mu     sync.Mutex
	writes int
	text   bytes.Buffer
	held   atomic.Pointer[chan struct{}]
}

func (s *sink) Write(p []byte) (int, error) {
	if held := s.held.Load(); held != nil {
		<-*held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	return s.text.Write(p)
}

func (s *sink) state() (writes int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes, s.text.String()
}

func TestLinesOfTheSameMomentAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		w := telemetry.NewWriter(s)
		for range 1000 {
			_, _ = w.Write([]byte("line\n"))
		}
		if writes, _ := s.state(); writes != 0 {
			t.Errorf("%d writes at once", writes)
		}
		time.Sleep(200 * time.Millisecond)
		if writes, text := s.state(); writes != 1 || text != strings.Repeat("line\n", 1000) {
			t.Errorf("%d writes of %d bytes", writes, len(text))
		}
		_, _ = w.Write([]byte("last\n"))
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if _, text := s.state(); !strings.HasSuffix(text, "last\n") {
			t.Error("what waited at the close was lost")
		}
	})
}

func TestALogNobodyReadsHoldsNobodyUpAndItsLossIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		blocked := make(chan struct{})
		s.held.Store(&blocked)
		w := telemetry.NewWriter(s)
		line := []byte(strings.Repeat("x", 1<<20-1) + "\n")
		_, _ = w.Write(line)
		time.Sleep(200 * time.Millisecond) // the first is being written, and stuck
		for range 6 {
			_, _ = w.Write(line)
		}
		if w.Lost() != 2 {
			t.Errorf("%d lines lost, want 2 of those beyond 4 MiB", w.Lost())
		}
		if err := w.Close(); err == nil {
			t.Error("a close that could not write said nothing")
		}
		close(blocked)
		synctest.Wait()
		_, text := s.state()
		if strings.Count(text, "\n") != 6 || !strings.Contains(text, `"msg":"log lines lost","lines":2`) {
			t.Errorf("%d lines", strings.Count(text, "\n"))
		}
		if w.Lost() != 2 {
			t.Errorf("%d lines lost once it was said", w.Lost())
		}
	})
}
