package sse

import (
	"strings"
	"testing"
)

func TestALargeBufferIsGivenBackBehindItsEvent(t *testing.T) {
	// The next event's beginning arrives in the same read as the large event's end.
	stream := "data: " + strings.Repeat("x", 1<<20) + "\n\ndata: a\n\ndata: b\n\ndata: c"
	r := NewReader(strings.NewReader(stream), 2<<20)
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
