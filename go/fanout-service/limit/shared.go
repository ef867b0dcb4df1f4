package limit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// lease is how long Redis keeps a slot for a process that says nothing more.
	lease      = 30 * time.Second
	renewEvery = 10 * time.Second
	// commandPatience is how long a round trip may take; the client's own time limits may be
	// shorter. answerPatience is the same for one who waits for its turn on the line, and holds
	// also when the client does not heed a context.
	commandPatience = 200 * time.Millisecond
	answerPatience  = 300 * time.Millisecond
	// Redis is left alone after a failure for a second at first, then for longer.
	downAtFirst = time.Second
	downAtMost  = 5 * time.Second
	// askAgain is when to ask again for a slot that was refused, at the earliest; at the latest
	// after askAgainSpread more.
	askAgain       = 50 * time.Millisecond
	askAgainSpread = 200 * time.Millisecond
	// maxUnsent bounds the slots whose release Redis was not there to take; the lease ends others.
	maxUnsent = 10_000
)

// Shared shares limits between processes by way of Redis: the slots of scopes with a MaxConcurrent,
// and the moments before which nothing may be sent. Slots are members of a sorted set, scored by
// when their lease ends on the server's clock, so that those of a process that was killed come back
// by themselves.
//
// One goroutine, which lives while there is something to do, sends everything in batches over one
// connection. So the slots of many calls are renewed together, and a slot that was given back is
// free before the process asks for the next.
//
// When Redis fails or freezes, the limits of the process alone hold, and no call waits for it but
// those that found it out.
type Shared struct {
	client  redis.UniversalClient
	prefix  string
	log     *slog.Logger
	process string // begins the names of this process's slots
	number  atomic.Uint64
	up      atomic.Bool

	commandPatience, answerPatience, renewEvery, lease time.Duration

	mu      sync.Mutex
	wake    chan struct{}
	running bool
	pending []*command
	held    map[string]*line // slots in use
	unsent  []*command       // releases for when Redis is back
	retryAt time.Time        // while it is down
	downFor time.Duration
}

// NewShared returns limits shared by all processes that use the same Redis and prefix. The client
// should give up early and not repeat commands: see SetTimeouts. log may be
// nil.
func NewShared(client redis.UniversalClient, prefix string, log *slog.Logger) *Shared {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	name := make([]byte, 8)
	_, _ = rand.Read(name) // never fails
	s := &Shared{
		client: client, prefix: prefix, log: log, process: hex.EncodeToString(name) + "-",
		commandPatience: commandPatience, answerPatience: answerPatience,
		renewEvery: renewEvery, lease: lease,
		wake: make(chan struct{}, 1), held: map[string]*line{},
	}
	s.up.Store(true)
	return s
}

// SetTimeouts makes a client of options give up as early as a call in a hurry needs it to.
func SetTimeouts(options *redis.Options) {
	options.DialTimeout, options.DialerRetries = 200*time.Millisecond, 1
	options.ReadTimeout, options.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	options.MaxRetries = -1
	options.ContextTimeoutEnabled = true
}

// Up says whether Redis did what it was last asked to. One that refuses the password does not.
func (s *Shared) Up() bool { return s.up.Load() }

type sharedOutcome uint8

const (
	sharedGranted sharedOutcome = iota // also when Redis is not there to ask
	sharedGated                        // nothing may be sent for a while
	sharedFull                         // no slot is free
	sharedEnded                        // the context ended
)

// sharedAnswer is what the other processes have to say about a call.
type sharedAnswer struct {
	outcome sharedOutcome
	model   bool          // it is about the model with the key, not the key
	wait    time.Duration // when gated
}

// admit asks for the slots that a call needs and for leave to send, and notes the slot's name.
func (s *Shared) admit(ctx context.Context, l *line, slot *string) sharedAnswer {
	name := ""
	if l.account.bound.max > 0 || l.bound.max > 0 {
		name = s.process + strconv.FormatUint(s.number.Add(1), 36)
	}
	c := s.admission(l, name)
	if !s.send(c) {
		*slot = s.hold(name, l)
		return sharedAnswer{}
	}
	timer := time.NewTimer(s.answerPatience)
	defer timer.Stop()
	answer := sharedAnswer{}
	select {
	case answer = <-c.answer:
	case <-timer.C:
		s.fail("no answer in time")
	case <-ctx.Done():
		s.release(name, l)
		return sharedAnswer{outcome: sharedEnded}
	}
	if answer.outcome == sharedGranted {
		*slot = s.hold(name, l)
	}
	return answer
}

// hold keeps a slot alive until its release, also one that Redis does not know yet: it will.
func (s *Shared) hold(slot string, l *line) string {
	if slot != "" {
		s.mu.Lock()
		s.held[slot] = l
		s.run()
		s.mu.Unlock()
	}
	return slot
}

// release gives a slot back; "" is none.
func (s *Shared) release(slot string, l *line) {
	if slot == "" {
		return
	}
	s.mu.Lock()
	delete(s.held, slot)
	s.mu.Unlock()
	s.send(s.releaseOf(l, slot))
}

// shut tells the other processes that nothing may be sent for a while. Redis keeps nothing for less
// than a millisecond: it would answer with an error, and that counts as a failure of Redis.
func (s *Shared) shut(gate string, wait time.Duration) {
	s.send(&command{script: shutScript, keys: []string{gate}, args: []any{max(1, wait.Milliseconds())}})
}

// send puts a command on the line. It returns false when Redis is not there.
func (s *Shared) send(c *command) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	up := s.Up()
	if up {
		s.pending = append(s.pending, c)
	} else {
		s.keep(c)
	}
	if up || !time.Now().Before(s.retryAt) {
		s.run()
	}
	select {
	case s.wake <- struct{}{}: // also to find that nothing is left to do
	default:
	}
	return up
}

// keep remembers what must not be lost while Redis is away.
func (s *Shared) keep(c *command) {
	if c.script == releaseScript && c.args[0] != "" && len(s.unsent) < maxUnsent { // a probe frees nothing
		s.unsent = append(s.unsent, c)
	}
}

// run starts the goroutine if it does not run. The lock is held.
func (s *Shared) run() {
	if !s.running {
		s.running = true
		go s.loop()
	}
}

// fail notes that Redis did not answer. What is on the line is answered by the process alone.
func (s *Shared) fail(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case s.up.CompareAndSwap(true, false):
		s.log.Warn("Redis does not answer: each process keeps to its own limits", "reason", why)
		s.downFor = downAtFirst
	case now.Before(s.retryAt):
		return // the same failure, told by another
	default:
		s.downFor = min(2*s.downFor, downAtMost)
	}
	s.retryAt = now.Add(s.downFor + jitter(s.downFor/10))
	for _, c := range s.pending {
		s.keep(c)
		if c.answer != nil {
			c.answer <- sharedAnswer{}
		}
	}
	s.pending = nil
}

// recovered notes that Redis answers again.
func (s *Shared) recovered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up.CompareAndSwap(false, true) {
		s.log.Info("Redis answers again: limits are shared")
	}
}
