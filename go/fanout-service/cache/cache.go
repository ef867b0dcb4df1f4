// Package cache keeps complete answers, and lets calls that ask the same at the same time share
// one piece of work.
//
// Answers live in memory, bounded in bytes, and where a Store is given also in Redis, shared with
// other replicas. What an answer is kept under is a workspace and a digest that Rex computed; the
// two are never joined into one string in memory, so that no workspace can reach another's answer
// by choosing its digest. Nothing the cache does can fail a call: an error is a miss.
package cache

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	fanout "rex/fanout-service"
)

// DefaultTTL is how long an answer is kept when the Config names no time.
const DefaultTTL = 24 * time.Hour

// Config bounds a cache.
type Config struct {
	MaxBytes int64         // of the answers in memory, with their keys and overhead; 0: none are kept there
	TTL      time.Duration // from StoredAt; 0: DefaultTTL
}

// Entry is a complete answer. One that came out of the cache is shared: nobody may change it.
type Entry struct {
	Text         []byte // the inside of a JSON string, escaped and valid as fanout.Sink wants it
	Thoughts     []byte // the reasoning in the same form, nil when there is none or nobody asked
	Characters   int    // code points of Text
	FinishReason fanout.FinishReason
	Usage        fanout.Usage
	Target       fanout.Target // that answered
	StoredAt     time.Time     // zero in a Put: now
}

// key is what an answer is kept under.
type key struct{ workspace, digest string }

// whole says whether both halves are there. Without a workspace an answer would be everybody's.
func (k key) whole() bool { return k.workspace != "" && k.digest != "" }

// Cache is safe for use by many goroutines.
type Cache struct {
	ttl    time.Duration
	memory *memory
	store  *Store // nil: memory only
	log    *slog.Logger
	misses atomic.Int64
	purges purges

	flightBytes atomic.Int64 // of text, of all flights, also those that are over and still followed

	mu      sync.Mutex // guards flights; held to find, add or drop one, never while text is passed on
	flights map[key]*Flight
	leads   sync.WaitGroup
}

// New returns a cache; store may be nil. Close it when no call needs it any more.
func New(config Config, store *Store, log *slog.Logger) *Cache {
	if config.TTL == 0 {
		config.TTL = DefaultTTL
	}
	if store != nil {
		store.start(log)
	}
	return &Cache{
		ttl: config.TTL, memory: newMemory(config.MaxBytes), store: store, log: log,
		flights: map[key]*Flight{},
	}
}

// Get returns the answer kept under workspace and digest, and its age, which is never negative. It
// looks into the Store when memory has none, and waits for that 100 ms at most.
func (c *Cache) Get(ctx context.Context, workspace, digest string) (*Entry, time.Duration, bool) {
	k := key{workspace, digest}
	if !k.whole() {
		return nil, 0, false
	}
	now := time.Now()
	if entry := c.memory.get(k, now); entry != nil {
		return entry, age(entry, now), true
	}
	if c.store != nil {
		since := c.purges.mark(workspace)
		if entry, left, ok := c.store.get(ctx, k); ok {
			now = time.Now()
			// Both clocks must agree that the answer is fresh: the Store's tells what is left
			// whatever the replica's that stored it, ours may have been given a shorter TTL.
			if left = min(left, c.ttl-age(entry, now)); left > 0 {
				c.purges.unless(since, func() { c.memory.put(k, entry, now.Add(left)) })
				return entry, age(entry, now), true
			}
		}
	}
	c.misses.Add(1)
	return nil, 0, false
}

// Mark is the moment at which the work on an answer begins, for its Put.
func (c *Cache) Mark(workspace string) Mark { return c.purges.mark(workspace) }

// Put keeps a copy of a complete answer, unless its workspace was purged since the mark. It does not
// wait for the Store, which is written behind.
func (c *Cache) Put(workspace, digest string, e *Entry, since Mark) {
	k := key{workspace, digest}
	if !k.whole() || since.workspace != workspace {
		return
	}
	now := time.Now()
	kept := *e
	kept.Text, kept.Thoughts = append([]byte(nil), e.Text...), append([]byte(nil), e.Thoughts...)
	if kept.StoredAt.IsZero() {
		kept.StoredAt = now
	}
	left := c.ttl - age(&kept, now)
	if left <= 0 {
		return
	}
	c.purges.unless(since, func() {
		c.memory.put(k, &kept, now.Add(left))
		if c.store != nil {
			c.store.put(k, &kept, now.Add(left), func() bool { return c.purges.since(since) })
		}
	})
}

// Purge forgets every answer of a workspace, in this process and in the Store. Answers on their way
// still reach those who wait for them, but are not kept, and nobody joins them any more. The rest is
// done also where the Store fails, which is an error: what it keeps is then still there. What other
// replicas hold in memory they keep until it expires, and what is on its way there they keep.
func (c *Cache) Purge(ctx context.Context, workspace string) error {
	c.purges.add(workspace)
	c.mu.Lock()
	maps.DeleteFunc(c.flights, func(k key, _ *Flight) bool { return k.workspace == workspace })
	c.mu.Unlock()
	c.memory.purge(workspace)
	if c.store == nil {
		return nil
	}
	return c.store.purge(ctx, workspace)
}

// Close waits for the leads in flight and then for what is still to be written to the Store, or
// until ctx ends. No Join may follow or run beside it.
func (c *Cache) Close(ctx context.Context) error {
	led := make(chan struct{})
	go func() {
		c.leads.Wait()
		close(led)
	}()
	select {
	case <-led:
	case <-ctx.Done():
	}
	if c.store == nil {
		return ctx.Err()
	}
	return c.store.close(ctx)
}

// FlightBytes is how much text all flights hold now: Stats.FlightBytes without a lock.
func (c *Cache) FlightBytes() int64 { return c.flightBytes.Load() }

// age is the time since an entry was stored. It is 0 for one that another replica, whose clock is
// ahead, stored in what is our future.
func age(e *Entry, now time.Time) time.Duration { return max(0, now.Sub(e.StoredAt)) }

// Stats are counts since the start, and what is held now.
type Stats struct {
	Bytes, Entries int64 // in memory now
	Evicted        int64 // pushed out of memory by newer ones
	MemoryHits     int64
	Misses         int64 // found in neither place

	StoreUp      bool  // the Store answers; false without one
	StoreHits    int64 // not in memory, but in the Store
	StoreWrites  int64
	StoreErrors  int64 // reads and writes that failed or took too long
	StoreDropped int64 // answers not written: too large, too many waiting, or the Store is down
	StoreCorrupt int64 // values that were none of ours

	Flights     int   // now
	Followers   int   // now, of all flights
	FlightBytes int64 // of text, now, of all flights and of those that are over and still followed
}

// Stats returns the counts of this moment.
func (c *Cache) Stats() Stats {
	stats := Stats{Misses: c.misses.Load(), FlightBytes: c.flightBytes.Load()}
	c.memory.count(&stats)
	if c.store != nil {
		c.store.count(&stats)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stats.Flights = len(c.flights)
	for _, flight := range c.flights {
		flight.count(&stats)
	}
	return stats
}
