package cache_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/internal/redistest"
)

func TestAnAnswerThatWasOnItsWayIsNotKeptAfterAPurge(t *testing.T) {
	c := cache.New(inMemory, nil, quiet)
	before, others := c.Mark("w"), c.Mark("w2")
	purge(t, c, "w")
	c.Put("w", digest(1), answer("old"), before)
	c.Put("w2", digest(1), answer("theirs"), others)
	if text, ok := get(c, "w", digest(1)); ok {
		t.Errorf("%q came back", text)
	}
	if _, ok := get(c, "w2", digest(1)); !ok {
		t.Error("another workspace's is gone")
	}
	c.Put("w", digest(1), answer("theirs"), c.Mark("w2"))
	if text, ok := get(c, "w", digest(1)); ok {
		t.Errorf("the mark of another workspace let %q in", text)
	}
	put(c, "w", digest(1), "new")
	if text, _ := get(c, "w", digest(1)); text != "new" {
		t.Errorf("what came after the purge is not kept: %q", text)
	}
}

func purge(t *testing.T, c *cache.Cache, workspace string) {
	t.Helper()
	for range 2 { // to purge again changes nothing
		if err := c.Purge(t.Context(), workspace); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPurgesOfManyWorkspacesAreForgottenInFavourOfForgettingAnswers(t *testing.T) {
	c := cache.New(inMemory, nil, quiet)
	purge(t, c, "w")
	before := c.Mark("w")
	purge(t, c, "w")
	for n := range 10_001 {
		purge(t, c, fmt.Sprintf("other-%d", n))
	}
	c.Put("w", digest(1), answer("old"), before)
	if text, ok := get(c, "w", digest(1)); ok {
		t.Errorf("%q came back", text)
	}
}

func TestNobodyJoinsAnAnswerFromBeforeAPurge(t *testing.T) {
	c := newFlights()
	hold := make(chan struct{})
	lead := func(_ context.Context, f *cache.Flight) {
		<-hold
		f.Publish(&fanout.Event{Type: fanout.Finished})
	}
	first := c.Join(t.Context(), "w", digest(1), time.Time{}, lead)
	other := c.Join(t.Context(), "w2", digest(1), time.Time{}, lead)
	purge(t, c, "w")
	late := c.Join(t.Context(), "w", digest(1), time.Time{}, lead)
	follows := c.Join(t.Context(), "w2", digest(1), time.Time{}, lead)
	if !late.Leads() || follows.Leads() {
		t.Errorf("led by who came after the purge: %v, of another workspace: %v", late.Leads(), follows.Leads())
	}
	close(hold)
	for _, each := range []*cache.Follower{first, other, late, follows} {
		if events, err := each.Next(t.Context(), nil); err != nil || len(events) != 1 {
			t.Errorf("%v: %d events", err, len(events))
		}
		each.Leave()
	}
}

// What waits to be written when the purge comes must not be written behind it.
func TestWhatWaitsForRedisIsNotWrittenBehindAPurge(t *testing.T) {
	server := redistest.New(t)
	r := newReplica(t, server.Addr, cache.Config{TTL: time.Hour})
	for round := range 5 {
		for n := range 500 {
			put(r.Cache, "w", digest(n), "old")
		}
		put(r.Cache, "w2", digest(round), "theirs")
		purge(t, r.Cache, "w")
		if names := r.redis.Keys(t.Context(), "*{w}*").Val(); len(names) != 0 {
			t.Fatalf("%d answers are left", len(names))
		}
	}
	put(r.Cache, "w", digest(1), "new")
	r.flush(t)
	if names := r.redis.Keys(t.Context(), "*{w}*").Val(); len(names) != 1 {
		t.Errorf("%d answers, want the one from after the purges", len(names))
	}
	if names := r.redis.Keys(t.Context(), "*{w2}*").Val(); len(names) != 5 {
		t.Errorf("%d answers of another workspace, want 5", len(names))
	}
}
