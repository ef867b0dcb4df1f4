package limit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	fanout "rex/fanout-service"
	"rex/fanout-service/internal/redistest"
	"rex/fanout-service/internal/testlog"
)

// helperAddress names the Redis of a process that holds slots until it is killed.
const helperAddress = "REX_TEST_HOLDER_REDIS"

// replica is a process's limits at a Redis. patience is for tests that ask for exact bounds: a busy
// machine must not make it fall back to its own.
func replica(t *testing.T, address string, config Config, lease time.Duration, patience time.Duration, log *slog.Logger) *Limiter {
	t.Helper()
	options := &redis.Options{Addr: address}
	SetTimeouts(options)
	if patience > 0 {
		options.DialTimeout, options.ReadTimeout, options.WriteTimeout = patience, patience, patience
	}
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := NewShared(client, "test:", log)
	s.lease, s.renewEvery = lease, lease/3
	if patience > 0 {
		s.commandPatience, s.answerPatience = patience, patience
	}
	return New(config, s, nil)
}

// inUse is how many slots Redis counts, over all scopes.
func inUse(t *testing.T, address string) (n int64) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: address})
	defer client.Close()
	keys, err := client.Keys(t.Context(), "test:*slots*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		n += client.ZCard(t.Context(), key).Val()
	}
	return n
}

// eventually waits for something that comes by itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func TestRacingCallsOfTwoProcessesNeverExceedTheBound(t *testing.T) {
	address := redistest.Start(t)
	config := Config{Rules: []Rule{{Provider: "p", MaxConcurrent: 9}, {Provider: "p", Model: "m", MaxConcurrent: 5}}}
	limiters := []*Limiter{
		replica(t, address, config, time.Minute, 10*time.Second, nil),
		replica(t, address, config, time.Minute, 10*time.Second, nil),
	}
	race(t, limiters, 5, 500)
	for _, l := range limiters {
		if s := state(t, l); s.InFlight != 0 || s.Queued != 0 || !l.shared.Up() {
			t.Errorf("%+v, up: %v", s, l.shared.Up())
		}
	}
	eventually(t, "no slot is in use", func() bool { return inUse(t, address) == 0 })
}

func TestAWishReachesTheOtherProcesses(t *testing.T) {
	address := redistest.Start(t)
	one, other := replica(t, address, Config{}, time.Minute, 10*time.Second, nil), replica(t, address, Config{}, time.Minute, 10*time.Second, nil)
	admit(t, other, askFor("a")).Done(Outcome{})
	admit(t, one, askFor("a")).Done(wish(time.Hour))
	admit(t, one, Ask{Target: fanout.Target{Provider: "q", Model: "m"}, Keys: oneKey}).Done(Outcome{}) // behind the wish on the line
	ask := askFor("a")
	ask.Target.Model = "other"
	ask.Deadline = time.Now().Add(time.Minute)
	if f := refused(t, other, ask); f.Kind != fanout.RateLimited || f.RetryAfter < 59*time.Minute {
		t.Error(f)
	}
	if s := state(t, other); s.NotBefore.IsZero() || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAWishForAnInstantIsNoFaultOfRedis(t *testing.T) {
	address := redistest.Start(t)
	said := &log{}
	l := replica(t, address, Config{}, time.Minute, 10*time.Second, slog.New(slog.NewTextHandler(said, nil)))
	admit(t, l, askFor("a")).Done(wish(500 * time.Microsecond))
	admit(t, l, askFor("a")).Done(Outcome{}) // behind the wish on the line
	if said.count("does not answer") > 0 || !l.shared.Up() {
		t.Error("Redis counts as down")
	}
}

func TestASlotOfAnotherProcessIsWaitedFor(t *testing.T) {
	address := redistest.Start(t)
	config := fixed(1)
	config.Default.RequestsPerMinute = 1000
	one, other := replica(t, address, config, time.Minute, 10*time.Second, nil), replica(t, address, config, time.Minute, 10*time.Second, nil)
	holder := admit(t, one, askFor("a"))
	noWait := askFor("a")
	noWait.NoWait = true
	if f := refused(t, other, noWait); f.Kind != fanout.QueueFull {
		t.Error(f)
	}
	// What was never sent has used up nothing.
	if b := other.room("p").accounts[oneKey[0].ID()].rates.requests; b.level != b.limit || b.pending != 0 {
		t.Errorf("%+v", b)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	told := atomic.Int64{}
	ask := askFor("a")
	ask.Waiting = func() { told.Add(1) }
	results := make(chan error, 1)
	go func() {
		_, err := other.Admit(ctx, ask)
		results <- err
	}()
	time.Sleep(700 * time.Millisecond) // it asks again meanwhile
	cancel(io.ErrUnexpectedEOF)
	if err := <-results; err != io.ErrUnexpectedEOF || told.Load() != 1 { //nolint:errorlint // the very cause
		t.Errorf("%v, told %d times", err, told.Load())
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { admit(t, other, askFor("a")).Done(Outcome{}) })
	}
	time.Sleep(100 * time.Millisecond)
	if s := state(t, other); s.InFlight+s.Queued != 3 {
		t.Errorf("%+v", s)
	}
	holder.Done(Outcome{})
	wg.Wait()
	eventually(t, "no slot is in use", func() bool { return inUse(t, address) == 0 })
}

func TestManyWhoWaitForOtherProcessesAskRedisSeldom(t *testing.T) {
	address := redistest.Start(t)
	one, other := replica(t, address, fixed(20), time.Minute, 10*time.Second, nil), replica(t, address, fixed(20), time.Minute, 10*time.Second, nil)
	var holders []*Permit
	for range 20 {
		holders = append(holders, admit(t, one, askFor("a")))
	}
	asked := func() (n int64) {
		client := redis.NewClient(&redis.Options{Addr: address})
		defer client.Close()
		stats := client.Info(t.Context(), "commandstats").Val()
		_, calls, _ := strings.Cut(stats, "cmdstat_evalsha:")
		if _, err := fmt.Sscanf(calls, "calls=%d", &n); err != nil {
			t.Error(err)
		}
		return n
	}
	begun, before := time.Now(), asked()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { admit(t, other, askFor("a")).Done(Outcome{}) })
	}
	time.Sleep(2 * time.Second)
	if n, most := asked()-before, 20+int64(time.Since(begun)/askAgain); n > most {
		t.Errorf("asked %d times, want %d at most", n, most)
	}
	for _, p := range holders {
		p.Done(Outcome{})
	}
	wg.Wait()
	eventually(t, "no slot is in use", func() bool { return inUse(t, address) == 0 })
}

func TestASlotInUseIsRenewed(t *testing.T) {
	address := redistest.Start(t)
	const lease = 600 * time.Millisecond
	one, other := replica(t, address, fixed(1), lease, 10*time.Second, nil), replica(t, address, fixed(1), lease, 10*time.Second, nil)
	admit(t, one, askFor("a")).Unsent() // gives its slot back as well
	holder := admit(t, one, askFor("a"))
	noWait := askFor("a")
	noWait.NoWait = true
	for until := time.Now().Add(3 * lease); time.Now().Before(until); time.Sleep(30 * time.Millisecond) {
		if f := refused(t, other, noWait); f.Kind != fanout.QueueFull {
			t.Fatal(f)
		}
	}
	holder.Done(Outcome{})
	admit(t, other, askFor("a")).Done(Outcome{})
}

// TestHolder is no test by itself: it is the process that the next one kills.
func TestHolder(t *testing.T) {
	address := os.Getenv(helperAddress)
	if address == "" {
		return
	}
	l := replica(t, address, fixed(4), 2*time.Second, 10*time.Second, nil)
	for range 3 {
		admit(t, l, askFor("a"))
	}
	fmt.Println("holding")
	time.Sleep(time.Minute)
}

func TestTheSlotsOfAKilledProcessComeBack(t *testing.T) {
	address := redistest.Start(t)
	holder := exec.Command(os.Args[0], "-test.run=^TestHolder$")
	holder.Env = append(os.Environ(), helperAddress+"="+address)
	output, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	survivor := admit(t, replica(t, address, fixed(4), 2*time.Second, 10*time.Second, nil), askFor("a"))
	defer survivor.Done(Outcome{})
	line := make([]byte, len("holding"))
	if _, err := io.ReadFull(output, line); err != nil || string(line) != "holding" {
		t.Fatalf("%q, %v", line, err)
	}
	l := replica(t, address, fixed(4), 2*time.Second, 10*time.Second, nil)
	noWait := askFor("a")
	noWait.NoWait = true
	refused(t, l, noWait)
	_ = holder.Process.Kill()
	_ = holder.Wait()
	if n := inUse(t, address); n != 4 {
		t.Errorf("%d slots in use, want 3 of the killed process and one more", n)
	}
	for range 3 {
		defer admit(t, l, askFor("a")).Done(Outcome{})
	}
}

// log takes what a limiter says.
type log struct{ testlog.Buffer }

func (l *log) count(words string) int { return strings.Count(l.String(), words) }

func TestAFrozenOrDeadRedisHoldsNobodyUp(t *testing.T) {
	for _, fault := range []string{"frozen", "killed"} {
		t.Run(fault, func(t *testing.T) {
			server := redistest.New(t)
			said := &log{}
			l := replica(t, server.Addr, fixed(4), time.Hour, 0, slog.New(slog.NewTextHandler(said, nil)))
			var stop atomic.Bool
			var calls atomic.Int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for !stop.Load() {
						p := admit(t, l, askFor("a"))
						time.Sleep(time.Millisecond)
						p.Done(Outcome{})
						calls.Add(1)
					}
				})
			}
			goOn := func(what string) {
				from := calls.Load()
				eventually(t, "calls go on "+what, func() bool { return calls.Load() > from+200 })
			}
			goOn("at first")
			held := admit(t, l, askFor("a"))
			if fault == "frozen" {
				server.Pause()
			} else {
				server.Kill()
			}
			eventually(t, "the failure is known", func() bool { return !l.shared.Up() })
			goOn("without Redis")
			if s := state(t, l); s.InFlight > 4 {
				t.Errorf("its own limits do not hold: %+v", s)
			}
			if fault == "frozen" {
				server.Resume()
			} else {
				server.Restart()
			}
			eventually(t, "the return is known", l.shared.Up)
			goOn("with Redis again")
			stop.Store(true)
			wg.Wait()
			eventually(t, "the slot held all along is the only one in use", func() bool { return inUse(t, server.Addr) == 1 })
			held.Done(Outcome{})
			eventually(t, "no slot is in use", func() bool { return inUse(t, server.Addr) == 0 })
			if down, up := said.count("own limits"), said.count("answers again"); down == 0 || down != up {
				t.Errorf("told %d times that Redis is away and %d times that it is back", down, up)
			}
			if said.count(server.Addr) > 0 {
				t.Error("the log tells an address")
			}
		})
	}
}

func TestARedisThatWasNeverThereHoldsNobodyUp(t *testing.T) {
	server := redistest.New(t)
	server.Kill()
	l := replica(t, server.Addr, fixed(2), time.Minute, 0, nil)
	for range 100 {
		admit(t, l, askFor("a")).Done(Outcome{})
	}
	if l.shared.Up() {
		t.Error("it is believed to be there")
	}
}
