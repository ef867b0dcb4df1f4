package cache_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"rex/fanout-service/cache"
	"rex/fanout-service/internal/redistest"
)

func TestAFrozenRedisDelaysNoCallTwice(t *testing.T) {
	server := redistest.New(t)
	r := newReplica(t, server.Addr, inMemory)
	put(r.Cache, "w", digest(0), "kept")
	until(t, "the first answer is written", func() bool { return r.Stats().StoreWrites == 1 })
	server.Pause()
	for n := range 2000 {
		if _, ok := get(r.Cache, "w", digest(n+1)); ok {
			t.Fatal("a hit out of nothing")
		}
		put(r.Cache, "w", digest(n+1), strings.Repeat("x", 5000))
	}
	if stats := r.Stats(); stats.StoreErrors > 8 || stats.StoreUp || stats.StoreDropped == 0 {
		t.Errorf("2000 calls beside a frozen Redis: %+v", stats)
	}
	if _, ok := get(r.Cache, "w", digest(2000)); !ok {
		t.Error("memory does not work without Redis")
	}
	server.Resume()
	until(t, "reads heal", func() bool {
		_, ok := get(r.Cache, "other", digest(0)) // nobody's: asks Redis
		return !ok && r.Stats().StoreUp
	})
	before := r.Stats().StoreWrites
	until(t, "writes heal", func() bool {
		put(r.Cache, "w", digest(0), "again")
		return r.Stats().StoreWrites > before
	})
	if log := r.log.String(); strings.Contains(log, "xxx") || strings.Contains(log, digest(5)) || !strings.Contains(log, `"cause":"timeout"`) {
		t.Errorf("log: %s", log)
	}
}

func TestADeadRedisIsMissedOnceAndFoundAgain(t *testing.T) {
	server := redistest.New(t)
	server.Kill()
	r := newReplica(t, server.Addr, cache.Config{TTL: time.Hour})
	for n := range 500 {
		put(r.Cache, "w", digest(n), "x")
		if _, ok := get(r.Cache, "w", digest(n)); ok {
			t.Fatal("a hit without Redis and memory")
		}
	}
	if stats := r.Stats(); stats.StoreErrors == 0 || stats.StoreErrors > 8 {
		t.Errorf("%+v", stats)
	}
	server.Restart()
	until(t, "what is put is got", func() bool {
		put(r.Cache, "w", digest(1), "back")
		text, ok := get(r.Cache, "w", digest(1))
		return ok && text == "back"
	})
	if log := r.log.String(); strings.Count(log, "does not answer") != 2 || strings.Count(log, "answers again") != 2 {
		t.Errorf("reads and writes are each told of once: %s", log)
	}
}

func TestARedisThatIsFullIsStillRead(t *testing.T) {
	r := newReplica(t, redistest.Start(t), cache.Config{TTL: time.Hour})
	r.redis.Set(t.Context(), redisName(digest(1)), aValue(nil), time.Hour)
	r.redis.ConfigSet(t.Context(), "maxmemory-policy", "noeviction")
	r.redis.ConfigSet(t.Context(), "maxmemory", "1")
	put(r.Cache, "w", digest(2), "secret answer")
	until(t, "the write fails", func() bool { return r.Stats().StoreErrors == 1 })
	if text, ok := get(r.Cache, "w", digest(1)); !ok || text != "hi" {
		t.Errorf("got %q, %v", text, ok)
	}
	if log := r.log.String(); strings.Contains(log, "secret") || !strings.Contains(log, "refused by Redis") {
		t.Errorf("log: %s", log)
	}
}

func TestCloseDoesNotWaitForAFrozenRedisBeyondItsTime(t *testing.T) {
	server := redistest.New(t)
	r := newReplica(t, server.Addr, cache.Config{TTL: time.Hour})
	server.Pause()
	put(r.Cache, "w", digest(1), "x")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); err == nil {
		t.Error("it says that all was written")
	}
	if stats := r.Stats(); stats.StoreErrors != 0 {
		t.Errorf("it waited until the write failed: %+v", stats)
	}
}

func TestAPurgeThatDidNotHappenSaysSo(t *testing.T) {
	server := redistest.New(t)
	r := newReplica(t, server.Addr, inMemory)
	if err := r.Purge(t.Context(), "w*"); err != nil {
		t.Errorf("nothing can be stored for such a workspace: %v", err)
	}
	put(r.Cache, "w", digest(1), "x")
	until(t, "it is written", func() bool { return r.Stats().StoreWrites == 1 })
	server.Kill()
	if err := r.Purge(t.Context(), "w"); err == nil {
		t.Error("a purge without Redis claims to have happened")
	}
	if _, ok := get(r.Cache, "w", digest(1)); ok {
		t.Error("still in memory")
	}
}

func TestACallThatEndsWhileRedisIsAskedSpeaksNotAgainstIt(t *testing.T) {
	server := redistest.New(t)
	r := newReplica(t, server.Addr, cache.Config{TTL: time.Hour})
	get(r.Cache, "w", digest(1)) // connects
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, _, ok := r.Get(ctx, "w", digest(1)); ok {
		t.Error("a hit")
	}
	if stats := r.Stats(); stats.StoreErrors != 0 || !stats.StoreUp {
		t.Errorf("%+v", stats)
	}
}
