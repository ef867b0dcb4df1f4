package httpapi

import (
	"bytes"
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
	stopped := 0
	answer := newWhole([]fanout.Call{{ID: "A"}, {ID: "B"}}, func() { stopped++ })
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
	if stopped != 0 {
		t.Fatal("the calls were ended too early")
	}
	say("A")
	if stopped != 1 || len(answer.calls[0].text) != maxWhole/2 {
		t.Errorf("ended %d times, with %d bytes", stopped, len(answer.calls[0].text))
	}
	_ = answer.take([]fanout.Event{{Type: fanout.Started, Call: "A"}}, nil)
	say("A")
	if stopped != 1 {
		t.Error("an answer that started over still counts")
	}
}
