package cache

import (
	"testing"
	"time"
)

func TestARestGrowsToFiveSecondsAndLetsOneFindOut(t *testing.T) {
	var r rest
	now := time.Now()
	if !r.admits(now) || !r.up() {
		t.Fatal("rests from the start")
	}
	if !r.failed(now) {
		t.Error("the first failure is no news")
	}
	for range 10 { // those who asked at the same time
		if r.failed(now.Add(time.Millisecond)) {
			t.Error("one outage is told of twice")
		}
	}
	for _, seconds := range []time.Duration{1, 2, 4, 5, 5, 5} {
		now = now.Add(seconds*time.Second - time.Nanosecond)
		if r.admits(now) {
			t.Fatalf("asked before %d s were over", seconds)
		}
		now = now.Add(time.Nanosecond)
		if !r.admits(now) {
			t.Fatalf("still not asked after %d s", seconds)
		}
		if r.admits(now) {
			t.Error("two find out at once")
		}
		r.failed(now)
	}
	if !r.answered() || r.answered() || !r.up() || !r.admits(now) {
		t.Error("an answer does not end the rest, or is news twice")
	}
}

func TestALongOutageDoesNotOverflowTheRest(t *testing.T) {
	var r rest
	now := time.Now()
	r.failed(now)
	for range 1000 {
		now = now.Add(longestRest)
		if !r.admits(now) {
			t.Fatal("not asked any more")
		}
		if r.admits(now.Add(firstRest - 1)) {
			t.Fatal("no rest any more")
		}
	}
}
