package limit

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	fanout "rex/fanout-service"
)

// names are the Redis keys of a scope. What is in braces keeps those of a key on one server of a
// cluster, so that a script can use them together.
type names struct{ gate, slots string }

func namesOf(prefix, provider string, key fanout.Key) names {
	scope := prefix + "limit:{" + provider + ":" + key.ID() + "}"
	return names{gate: scope + ":gate", slots: scope + ":slots"}
}

func (n names) of(model string) names {
	return names{gate: n.gate + ":" + model, slots: n.slots + ":" + model}
}

var (
	// admitScript answers {0, 0} when the call may be sent and has its slots, {n, ms} when gate n
	// keeps it back, and {n, 0} when the slots of KEYS[n] are taken.
	admitScript = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, 2 do
  local rest = redis.call('PTTL', KEYS[i])
  if rest > 0 then return {i, rest} end
end
for i = 3, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  if redis.call('ZCARD', KEYS[i]) >= tonumber(ARGV[i]) then return {i, 0} end
end
for i = 3, #KEYS do
  redis.call('ZADD', KEYS[i], now + ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return {0, 0}`)

	// renewScript gives the slots ARGV[2…] of one scope another lease.
	renewScript = redis.NewScript(`
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 0`)

	// shutScript moves a gate; the latest of several wishes holds.
	shutScript = redis.NewScript(`
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 0`)

	// releaseScript gives a slot back in every scope it counts in.
	releaseScript = redis.NewScript(`
for i = 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
return 0`)
)

// maxRenewed is how many slots one command renews: Redis does nothing else meanwhile.
const maxRenewed = 1000

// command is one thing to tell Redis.
type command struct {
	script *redis.Script
	keys   []string
	args   []any
	result *redis.Cmd
	line   *line
	answer chan sharedAnswer // of an admission; has room for it
}

func (s *Shared) admission(l *line, slot string) *command {
	keys, args := append(make([]string, 0, 4), l.account.names.gate, l.names.gate), append(make([]any, 0, 4), s.lease.Milliseconds(), slot)
	for _, scope := range l.scopes {
		keys, args = append(keys, scope.slots), append(args, scope.max)
	}
	return &command{script: admitScript, keys: keys, args: args, line: l, answer: make(chan sharedAnswer, 1)}
}

func (s *Shared) releaseOf(l *line, slot string) *command {
	c := &command{script: releaseScript, args: []any{slot}}
	for _, scope := range l.scopes {
		c.keys = append(c.keys, scope.slots)
	}
	return c
}

// renewals are the commands that renew all slots in use. The lock is held.
func (s *Shared) renewals() []*command {
	var commands []*command
	last := map[string]*command{} // by scope
	for slot, l := range s.held {
		for _, scope := range l.scopes {
			c := last[scope.slots]
			if c == nil || len(c.args) > maxRenewed {
				c = &command{script: renewScript, keys: []string{scope.slots}, args: []any{s.lease.Milliseconds()}}
				last[scope.slots] = c
				commands = append(commands, c)
			}
			c.args = append(c.args, slot)
		}
	}
	return commands
}

// loop delivers what is on the line until nothing is left to do.
func (s *Shared) loop() {
	renew := time.NewTicker(s.renewEvery)
	defer renew.Stop()
	due := false
	for {
		batch, wait, ok := s.next(due)
		if !ok {
			return
		}
		if len(batch) > 0 {
			due = false
			s.deliver(batch)
			continue
		}
		retry := time.NewTimer(wait)
		select {
		case <-s.wake:
		case <-retry.C:
		case <-renew.C:
			due = true
		}
		retry.Stop()
	}
}

// next is what to deliver now, or how long to wait; ok is false when the goroutine is needed no
// more.
func (s *Shared) next(due bool) (batch []*command, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = time.Until(s.retryAt)
	switch {
	case s.Up():
		batch = append(batch, s.unsent...)
		batch = append(batch, s.pending...)
		s.unsent, s.pending = nil, nil
		wait = s.renewEvery
		if due {
			batch = append(batch, s.renewals()...)
		}
	case wait <= 0:
		// The probe. It gives back what was done with meanwhile and renews the rest, which Redis
		// may never have heard of.
		probe := &command{script: releaseScript, keys: []string{s.prefix + "limit:probe"}, args: []any{""}}
		batch = append(batch, s.unsent...)
		batch = append(batch, probe)
		batch = append(batch, s.renewals()...)
		s.unsent = nil
	}
	if len(batch) == 0 && len(s.held) == 0 {
		s.running = false
		return nil, 0, false
	}
	return batch, wait, true
}

// deliver sends a batch and hands out the answers.
func (s *Shared) deliver(batch []*command) {
	ctx, cancel := context.WithTimeout(context.Background(), s.commandPatience)
	defer cancel()
	s.evaluate(ctx, batch, (*redis.Script).EvalSha)
	var unknown []*command // after a restart Redis knows no scripts
	for _, c := range batch {
		if redis.HasErrorPrefix(c.result.Err(), "NOSCRIPT") {
			unknown = append(unknown, c)
		}
	}
	if len(unknown) > 0 {
		s.evaluate(ctx, unknown, (*redis.Script).Eval)
	}
	why := ""
	for _, c := range batch {
		answer, err := c.read()
		if err != nil {
			why = reason(err)
			s.mu.Lock()
			s.keep(c)
			s.mu.Unlock()
		}
		if c.answer != nil {
			c.answer <- answer
		}
	}
	if why != "" {
		s.fail(why)
	} else {
		s.recovered()
	}
}

type evaluator func(script *redis.Script, ctx context.Context, client redis.Scripter, keys []string, args ...any) *redis.Cmd

func (s *Shared) evaluate(ctx context.Context, batch []*command, evaluate evaluator) {
	pipeline := s.client.Pipeline()
	for _, c := range batch {
		c.result = evaluate(c.script, ctx, pipeline, c.keys, c.args...)
	}
	_, err := pipeline.Exec(ctx)
	if err == nil {
		return
	}
	for _, c := range batch {
		// Each has its own error, but not where the connection was refused for its password: the
		// client then leaves them without one, and without an answer.
		if c.result.Err() == nil && c.result.Val() == nil {
			c.result.SetErr(err)
		}
	}
}

// read is the answer to a command; an error leaves the decision to this process.
func (c *command) read() (sharedAnswer, error) {
	if c.answer == nil {
		return sharedAnswer{}, c.result.Err()
	}
	numbers, err := c.result.Int64Slice()
	if err != nil {
		return sharedAnswer{}, err
	}
	if len(numbers) != 2 {
		return sharedAnswer{}, errors.New("an answer of another form")
	}
	switch scope := numbers[0]; scope {
	case 0:
		return sharedAnswer{}, nil
	case 1, 2:
		return sharedAnswer{outcome: sharedGated, model: scope == 2, wait: time.Duration(numbers[1]) * time.Millisecond}, nil
	default:
		return sharedAnswer{outcome: sharedFull, model: scope == 4 || c.line.account.bound.max == 0}, nil
	}
}

// reason names an error without what may be private in it.
func reason(err error) string {
	var reply redis.Error
	switch {
	case errors.As(err, &reply):
		word, _, _ := strings.Cut(reply.Error(), " ")
		switch word {
		case "NOAUTH", "WRONGPASS", "NOPERM":
			return "refused: authentication"
		}
		return word
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "timeout"
	default:
		return "connection"
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
