package fakeprovider

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// moods are scripts whose answer depends on what came before, or on the key. Each plays another
// script as its failure ("as") and as its success ("then"); those read the same options.
var moods = []script{
	{name: "fail-first", does: "The first `n` (1) requests of a key fail.", options: failing, streams: refused, plays: true, run: func(s *session) {
		var seen int
		s.remember(func(m *modelState) { seen = m.perKey[s.entry.KeyHash] })
		s.choose(seen <= s.number("n", 1))
	}},
	{name: "flaky", does: "`percent` (50) of the requests fail, by the seed.", options: failing + ", `seed` (1)", streams: refused, plays: true, run: func(s *session) {
		seed := uint64(s.number("seed", 1))
		draw := rand.New(rand.NewPCG(seed, uint64(s.nth)*2+1)) //nolint:gosec // a script repeats itself
		s.choose(draw.IntN(100) < s.number("percent", 50))
	}},
	{name: "down", does: "Every request fails until `for_ms` (1000) after the first one.", options: failing, streams: refused, plays: true, run: func(s *session) {
		var since time.Time
		s.remember(func(m *modelState) { since = m.since })
		s.choose(time.Since(since) < s.ms("for_ms", 1000))
	}},
	{name: "crowded", does: "Refuses, speaking of concurrency, while `limit` (4) answers are being written.", options: "`as` (`too-concurrent`; `overloaded` and others), `then` (`ok`), `status`", streams: completely, plays: true, run: crowded},
	{name: "window", does: "The first request gets 429 with a `Retry-After` of `window_ms` (2000), and so does what comes within it; `early` counts those. Then it answers.", options: "`then` (`ok`)", streams: refused, plays: true, run: closedWindow},
	{name: "metered", does: "A real limit of `requests` (10) and `tokens` (10 000) per `window_ms` (60 000) and key, told in the wire's allowance headers; 429 with `Retry-After` beyond it.", options: "`then` (`ok`)", streams: completely, plays: true, run: metered},
	{name: "keys", does: "Keys whose hash begins with one of `dead` are refused (`bad-key`), those of `limited` get 429 (`rate-limited`, and its options), all others an answer.", options: "`then` (`ok`)", streams: completely, plays: true, run: func(s *session) {
		switch {
		case listed(s.text("dead", ""), s.entry.KeyHash):
			s.play("bad-key")
		case listed(s.text("limited", ""), s.entry.KeyHash):
			s.play("rate-limited")
		default:
			s.play(s.text("then", "ok"))
		}
	}},
	{name: "slow-once", does: "Of `every` (2) requests the first waits `slow_ms` (3000) before its first word, the others do not: a hedge is faster.", options: "`then` (`ok`)", streams: completely, plays: true, run: func(s *session) {
		if (s.nth-1)%max(1, s.number("every", 2)) == 0 {
			s.options.Set("first_ms", s.text("slow_ms", "3000"))
		}
		s.play(s.text("then", "ok"))
	}},
}

const failing = "`status` (503) or `as` (a script), `then` (`ok`)"

// choose plays the failure or the success.
func (s *session) choose(fail bool) {
	if !fail {
		s.play(s.text("then", "ok"))
		return
	}
	s.play(s.text("as", "http-"+s.text("status", "503")))
}

// play runs another script in place of this one. What does not exist, and what plays others
// itself, is a failure of the test that asks for it.
func (s *session) play(name string) {
	found, argument := s.server.find(name)
	if found == nil || found.plays || !found.speaks(s.wire) {
		f := s.wire.fault(notFound, http.StatusNotFound)
		f.message += name
		s.refuse(f)
		return
	}
	s.argument = argument
	found.run(s)
}

func crowded(s *session) {
	admitted := false
	s.remember(func(m *modelState) {
		if admitted = m.held < s.number("limit", 4); admitted {
			m.held++
		}
	})
	if !admitted {
		s.play(s.text("as", "too-concurrent"))
		return
	}
	defer s.remember(func(m *modelState) { m.held-- })
	s.play(s.text("then", "ok"))
}

// closedWindow tells what is left of the window rounded up to a second, and in milliseconds.
func closedWindow(s *session) {
	var left time.Duration
	s.remember(func(m *modelState) {
		if m.closed[s.entry.KeyHash].IsZero() {
			m.closed[s.entry.KeyHash] = time.Now().Add(s.ms("window_ms", 2000))
		}
		left = time.Until(m.closed[s.entry.KeyHash])
	})
	if left <= 0 {
		s.play(s.text("then", "ok"))
		return
	}
	s.busyFor(left)
}

// busyFor refuses with a Retry-After in both forms.
func (s *session) busyFor(left time.Duration) {
	s.w.Header().Set("Retry-After", itoa(int((left+time.Second-1)/time.Second)))
	s.w.Header().Set("Retry-After-Ms", itoa(int((left+time.Millisecond-1)/time.Millisecond)))
	s.bind(left)
	s.refuse(s.fault(rateLimit, 0))
}

// window is one key's use of a metered limit.
type window struct {
	ends             time.Time
	requests, tokens int
}

func metered(s *session) {
	limit := allowance{requests: s.number("requests", 10), tokens: s.number("tokens", 10_000)}
	cost := s.asked.words + s.number("words", s.number("chunks", 12))
	admitted := false
	s.remember(func(m *modelState) {
		used := m.windows[s.entry.KeyHash]
		if time.Now().After(used.ends) {
			used = window{ends: time.Now().Add(s.ms("window_ms", 60_000))}
		}
		if admitted = used.requests < limit.requests && used.tokens+cost <= limit.tokens; admitted {
			used.requests++
			used.tokens += cost
		}
		m.windows[s.entry.KeyHash] = used
		limit.requestsLeft, limit.tokensLeft = limit.requests-used.requests, limit.tokens-used.tokens
		limit.reset = time.Until(used.ends).Round(time.Millisecond)
	})
	s.wire.allowance(s.w.Header(), limit)
	if !admitted {
		s.busyFor(limit.reset)
		return
	}
	s.play(s.text("then", "ok"))
}

// listed says whether one of the comma-separated beginnings fits.
func listed(beginnings, hash string) bool {
	for _, one := range strings.Split(beginnings, ",") {
		if one != "" && strings.HasPrefix(hash, one) {
			return true
		}
	}
	return false
}
