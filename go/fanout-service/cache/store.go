package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// readTimeout is how long a call may wait for Redis before it is made without.
	readTimeout = 100 * time.Millisecond
	// writeTimeout may be longer: nobody waits for a write.
	writeTimeout = time.Second
	// maxValue bounds an answer in Redis, in bytes: to read a larger one would take a large part of
	// readTimeout.
	maxValue = 1 << 20

	maxQueued      = 1024    // answers that wait to be written
	maxQueuedBytes = 8 << 20 // of them together
	batchAnswers   = 64      // written in one round trip
)

// Store keeps answers in Redis, shared by all replicas, under `<prefix>cache:1:{<workspace>}:<digest>`
// with a time to live; see value for what they look like. Redis may hang or be gone at any time:
// reading is bounded, writing is done behind the calls, and after a failure Redis is left alone for
// a while.
type Store struct {
	client        redis.UniversalClient
	prefix        string
	log           *slog.Logger
	reads, writes rest

	writing sync.Mutex // held while a batch is under way
	queue   chan write
	waiting atomic.Int64 // bytes in the queue
	mu      sync.RWMutex // guards closed against a put
	closed  bool
	written chan struct{}      // the writer has ended
	abort   context.CancelFunc // of what it writes

	hits, stored, failures, dropped, corrupt atomic.Int64
}

type write struct {
	key     string
	value   []byte
	expires time.Time
	purged  func() bool // the workspace was purged since
}

// NewStore returns a store behind a client, which stays the caller's to close, after the cache.
//
// The client needs ContextTimeoutEnabled, without which it does not mind how long a call may wait.
// It should not retry on its own (MaxRetries: -1, DialerRetries: 1), and give a connection 200 ms
// (DialTimeout): what it goes on trying, no call waits for any more.
func NewStore(client redis.UniversalClient, prefix string) *Store {
	return &Store{client: client, prefix: prefix, log: slog.New(slog.DiscardHandler)}
}

// start begins to write what is put.
func (s *Store) start(log *slog.Logger) {
	s.log = log
	s.queue, s.written = make(chan write, maxQueued), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	s.abort = cancel
	go s.writeBehind(ctx)
}

// close waits until all is written or ctx ends; then what is left is dropped, and a write under way
// given up within its own time.
func (s *Store) close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
	s.mu.Unlock()
	defer s.abort()
	select {
	case <-s.written:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var (
	workspaces = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	digests    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// name is the key in Redis. The braces put a workspace's answers on one node of a cluster, and end
// the workspace, which can hold none. Keys that are not of the contract's form have no name.
func (s *Store) name(k key) (string, bool) {
	if !workspaces.MatchString(k.workspace) || !digests.MatchString(k.digest) {
		return "", false
	}
	return s.family(k.workspace) + k.digest, true
}

func (s *Store) family(workspace string) string {
	return fmt.Sprintf("%scache:%d:{%s}:", s.prefix, valueVersion, workspace)
}

// get returns the entry and how long it may still be served, by Redis' clock; forever when it was
// stored without an end.
func (s *Store) get(ctx context.Context, k key) (*Entry, time.Duration, bool) {
	name, ok := s.name(k)
	if !ok || !s.reads.admits(time.Now()) {
		return nil, 0, false
	}
	asked, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	pipe := s.client.Pipeline()
	get, left := pipe.Get(asked, name), pipe.PTTL(asked, name)
	_, err := pipe.Exec(asked)
	switch {
	case errors.Is(get.Err(), redis.Nil):
		s.answered(&s.reads, "read")
		return nil, 0, false
	case redis.HasErrorPrefix(get.Err(), "WRONGTYPE"):
		s.answered(&s.reads, "read")
		s.corrupt.Add(1)
		return nil, 0, false
	case over(ctx):
		return nil, 0, false // it was the caller's time that ran out; that says nothing about Redis
	case err != nil:
		s.failed(&s.reads, "read", err)
		return nil, 0, false
	}
	s.answered(&s.reads, "read")
	value, _ := get.Bytes()
	entry, err := decode(value)
	if err != nil {
		s.corrupt.Add(1)
		return nil, 0, false
	}
	s.hits.Add(1)
	switch left := left.Val(); left {
	case -1: // no end
		return entry, 1<<63 - 1, true
	case -2: // it ended between the two
		return nil, 0, false
	default:
		return entry, left, true
	}
}

// over says whether a context has ended. At its deadline the connection's timer may be faster to
// say so than the context's own.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// put queues an entry to be written, or drops it. When its turn comes, purged says whether it is
// still wanted.
func (s *Store) put(k key, e *Entry, expires time.Time, purged func() bool) {
	name, ok := s.name(k)
	if !ok {
		return
	}
	value, err := encode(e)
	if err != nil || len(value) > maxValue {
		s.dropped.Add(1)
		return
	}
	size := int64(len(value))
	if s.waiting.Add(size) > maxQueuedBytes || !s.enqueue(write{name, value, expires, purged}) {
		s.waiting.Add(-size)
		s.dropped.Add(1)
	}
}

func (s *Store) enqueue(w write) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false
	}
	select {
	case s.queue <- w:
		return true
	default:
		return false
	}
}

// writeBehind writes what is queued until the queue is closed and empty.
func (s *Store) writeBehind(ctx context.Context) {
	defer close(s.written)
	batch := make([]write, 0, batchAnswers)
	for first := range s.queue {
		batch = append(batch[:0], first)
		size := len(first.value)
		for more := true; more && len(batch) < batchAnswers && size < maxValue; {
			select {
			case next, open := <-s.queue:
				if more = open; open {
					batch = append(batch, next)
					size += len(next.value)
				}
			default:
				more = false
			}
		}
		s.write(ctx, batch)
		s.waiting.Add(-int64(size))
		clear(batch)
	}
}

func (s *Store) write(ctx context.Context, batch []write) {
	s.writing.Lock()
	defer s.writing.Unlock()
	batch = slices.DeleteFunc(batch, func(w write) bool { return w.purged() })
	if len(batch) == 0 {
		return
	}
	now := time.Now()
	if ctx.Err() != nil || !s.writes.admits(now) {
		s.dropped.Add(int64(len(batch)))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	pipe := s.client.Pipeline()
	for _, w := range batch {
		if left := w.expires.Sub(now); left >= time.Millisecond {
			pipe.Set(ctx, w.key, w.value, left)
		}
	}
	commands, err := pipe.Exec(ctx)
	if err == nil {
		s.stored.Add(int64(len(commands)))
		s.answered(&s.writes, "write")
		return
	}
	for _, command := range commands {
		if command.Err() == nil {
			s.stored.Add(1)
		} else {
			s.dropped.Add(1)
		}
	}
	s.failed(&s.writes, "write", err)
}

// purge deletes a workspace's answers. Those still waiting to be written know that they are not
// wanted any more; a batch that is just being written is waited for.
func (s *Store) purge(ctx context.Context, workspace string) error {
	if !workspaces.MatchString(workspace) {
		return nil
	}
	s.writing.Lock()   // no longer than writeTimeout
	s.writing.Unlock() //nolint:staticcheck // it is only to wait for
	pattern := patternOf(s.prefix) + strings.TrimPrefix(s.family(workspace), s.prefix) + "*"
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return deleteAll(ctx, node, pattern)
		})
	}
	return deleteAll(ctx, s.client, pattern)
}

func deleteAll(ctx context.Context, client redis.Cmdable, pattern string) error {
	var cursor uint64
	for {
		names, next, err := client.Scan(ctx, cursor, pattern, 1000).Result()
		if err != nil {
			return err
		}
		if len(names) > 0 {
			if err := client.Unlink(ctx, names...).Err(); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// patternOf is a pattern that matches the text itself.
func patternOf(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(text)
}

func (s *Store) answered(r *rest, what string) {
	if r.answered() {
		s.log.Info("the cache's store answers again", "operation", what)
	}
}

// failed counts a failure, and tells of the first in a row. The error's own words are kept out of
// the log: Redis repeats in some what it was sent.
func (s *Store) failed(r *rest, what string, err error) {
	s.failures.Add(1)
	if r.failed(time.Now()) {
		s.log.Warn("the cache's store does not answer; calls go on without it", "operation", what, "cause", cause(err))
	}
}

// cause is a word for an error.
func cause(err error) string {
	var refusal redis.Error
	var network net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, net.ErrClosed):
		return "connection lost"
	case errors.As(err, &refusal):
		return "refused by Redis"
	default:
		return "other"
	}
}

func (s *Store) count(stats *Stats) {
	stats.StoreUp = s.reads.up()
	stats.StoreHits = s.hits.Load()
	stats.StoreWrites = s.stored.Load()
	stats.StoreErrors = s.failures.Load()
	stats.StoreDropped = s.dropped.Load()
	stats.StoreCorrupt = s.corrupt.Load()
}
