package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	fanout "rex/fanout-service"
)

func TestAPieceOfTextIsWrittenWithoutAllocating(t *testing.T) {
	buf := make([]byte, 0, 1024)
	for _, kind := range []fanout.EventType{fanout.Chunk, fanout.Thought} {
		event := &fanout.Event{Type: kind, Call: "A", At: time.Second, Text: []byte("a piece")}
		if n := testing.AllocsPerRun(100, func() { buf = appendEvent(buf[:0], event) }); n != 0 {
			t.Errorf("%s: %v allocations", kind, n)
		}
	}
}

func TestAModelIsEscapedWhereItMustBe(t *testing.T) {
	for model, want := range map[string]string{
		"org/model:free":   `"org/model:free"`,
		`a"b\c`:            `"a\"b\\c"`,
		"modèle":           `"modèle"`,
		"a\u2028separator": `"a\u2028separator"`,
	} {
		if got := string(appendString(nil, model)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestTextsThatAreTooLongTogetherEndTheCalls(t *testing.T) {
	stopped, held := 0, 0
	answer := newWhole([]fanout.Call{{ID: "A"}, {ID: "B"}}, nil, func(bytes int) { held += bytes }, func() { stopped++ })
	piece := bytes.Repeat([]byte("x"), 1<<20)
	say := func(call string) {
		if err := answer.take([]fanout.Event{{Type: fanout.Chunk, Call: call, Text: piece}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range maxWhole >> 21 {
		say("A")
		say("B")
	}
	if stopped != 0 || held != maxWhole {
		t.Fatal("the calls were ended too early")
	}
	say("A")
	if stopped != 1 || len(answer.calls[0].text) != maxWhole/2 || held != maxWhole {
		t.Errorf("ended %d times, with %d bytes, %d are held", stopped, len(answer.calls[0].text), held)
	}
	_ = answer.take([]fanout.Event{{Type: fanout.Started, Call: "A"}}, nil)
	say("A")
	if stopped != 1 || held != maxWhole/2+len(piece) {
		t.Errorf("an answer that started over still counts: %d bytes are held", held)
	}
}

// recorder takes all that is written to it at once.
type recorder struct{ *httptest.ResponseRecorder }

func (recorder) SetWriteDeadline(time.Time) error { return nil }

func TestACallWhoseTextIsNotAllThereDoesNotSayThatItFinished(t *testing.T) {
	w := recorder{httptest.NewRecorder()}
	calls := []fanout.Call{{ID: "A"}, {ID: "B"}, {ID: "C"}}
	answer := newWhole(calls, newFlow(w, time.Minute, func() {}), func(int) {}, func() {})
	piece := func(call string, bytes int) fanout.Event {
		return fanout.Event{Type: fanout.Chunk, Call: call, Text: []byte(strings.Repeat("x", bytes))}
	}
	finished := func(call string) fanout.Event {
		return fanout.Event{
			Type: fanout.Finished, Call: call, Attempt: 1, FinishReason: fanout.FinishStop,
			Usage: &fanout.Usage{OutputTokens: 3}, Timing: fanout.NoTiming, CachedAge: fanout.Never,
		}
	}
	_ = answer.take([]fanout.Event{piece("A", maxWhole-8), finished("A"), piece("B", 4), piece("B", 5), piece("B", 1)}, nil)
	end := fanout.End{Calls: 3, Finished: 3}
	// Another call's text still fits, and is all there.
	if err := answer.take([]fanout.Event{finished("B"), piece("C", 4), finished("C")}, &end); err != nil {
		t.Error(err)
	}
	var got struct {
		Calls []struct {
			Text   string
			Result struct {
				Type, Kind string
				Usage      *fanout.Usage
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"finished ", "failed response_too_large", "finished "} {
		if result := got.Calls[i].Result; result.Type+" "+result.Kind != want || result.Usage.OutputTokens != 3 {
			t.Errorf("%s: %+v, want %s", calls[i].ID, result, want)
		}
	}
	if text := got.Calls[1].Text; text != "xxxx" {
		t.Errorf("behind what was left out: %q", text)
	}
	if end.Finished != 2 || end.Failed != 1 {
		t.Errorf("the end tells %+v", end)
	}
}
