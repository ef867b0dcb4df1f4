package sse

import (
	"errors"
	"strings"
	"testing"

	"rex/fanout-service/provider/memory"
)

func TestALargeBufferIsGivenBackBehindItsEvent(t *testing.T) {
	// The next event's beginning arrives in the same read as the large event's end.
	stream := "data: " + strings.Repeat("x", 1<<20) + "\n\ndata: a\n\ndata: b\n\ndata: c"
	r := NewReader(strings.NewReader(stream), 2<<20, nil)
	for _, want := range []int{1 << 20, 1, 1} {
		data, err := r.Next()
		if err != nil || len(data) != want {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
	}
	if _, err := r.Next(); err == nil {
		t.Fatal("an event without its end counts")
	}
	if cap(r.buf) > keepBuffer || cap(r.data) > keepBuffer {
		t.Errorf("%d and %d bytes are kept", cap(r.buf), cap(r.data))
	}
}

func TestReadersOfOneBoundHoldNoMoreThanItAndGiveBack(t *testing.T) {
	bound := memory.New(4 << 20)
	long := "data: " + strings.Repeat("x", 1<<20) + "\n\n"
	first := NewReader(strings.NewReader(long+"data: a\n\n"), 2<<20, bound)
	second := NewReader(strings.NewReader(long), 2<<20, bound)
	if _, err := first.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Next(); !errors.Is(err, memory.ErrFull) {
		t.Errorf("two long events in the room of one: %v", err)
	}
	second.Close()
	if data, err := first.Next(); err != nil || string(data) != "a" {
		t.Fatalf("%q, %v", data, err)
	}
	if _, err := first.Next(); err == nil { // which reads on, and lets the large buffer go
		t.Fatal("another event")
	}
	third := NewReader(strings.NewReader(long), 2<<20, bound)
	if _, err := third.Next(); err != nil {
		t.Errorf("after the long event was read: %v", err)
	}
	third.Close()
	first.Close()
	hold := bound.Hold()
	if err := hold.Resize(4 << 20); err != nil {
		t.Error("not all was given back")
	}
}
