package fakeprovider_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rex/fanout-service/fakeprovider"
)

// stays are models that stay in one phase of an answer until the client leaves.
var stays = map[string]string{
	"before the header":         "no-headers",
	"before the first event":    "stall-first?ping_ms=0",
	"before the first word":     "slow-first-token",
	"between pings":             "stall?ping_ms=1",
	"in silence":                "stall?ping_ms=0",
	"between words":             "ok?delay_ms=60000",
	"in the middle of writing":  "endless",
	"behind the finish reason":  "no-done-open",
	"in an endless error":       "endless-error",
	"in a dripping header":      "header-drip?delay_ms=60000",
	"in a script in another":    "cut-at?as=stall&bytes=1000000",
	"in what a mood plays":      "crowded?then=stall",
	"in the body of a big line": "bulk?bytes=1000000000",
}

func TestAClientThatLeavesIsNotedInEveryPhase(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for phase, model := range stays {
			if http2 && strings.HasPrefix(model, "header-drip") {
				continue // its bytes are HTTP/1
			}
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", phase, http2), func(t *testing.T) {
				t.Parallel()
				u := start(t, fakeprovider.Options{HTTP2: http2})
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				request := u.request(ctx, "openai", model, true)
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					response, err := u.client.Do(request)
					if err == nil {
						<-ctx.Done()
						_ = response.Body.Close()
					}
				}()
				for len(u.fake.Log()) == 0 {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(10 * time.Millisecond)
				if entry := u.fake.Log()[0]; entry.AbortedAt != nil || entry.EndedAt != nil {
					t.Fatalf("it did not stay: %+v", entry)
				}
				left := time.Now()
				leave()
				<-gone
				entry := u.settled()[0]
				if entry.AbortedAt == nil || entry.Finished || entry.AbortedAt.Before(left.UTC().Truncate(0)) {
					t.Errorf("left at %v: %+v", left, entry)
				}
			})
		}
	}
}

func TestAClientThatLeavesInsideItsRequestIsNoted(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	conn, err := net.Dial("tcp", u.at.Address)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"))
	_ = conn.Close()
	for len(u.fake.Log()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if entry := u.settled()[0]; entry.Script != "unread" || entry.AbortedAt == nil || entry.Finished {
		t.Errorf("%+v", entry)
	}
}

// Whoever leaves at any moment, of any script, leaves an entry that says one thing: either the
// script ran to its end, or the client left.
func TestNobodyLeavesUnseen(t *testing.T) {
	scripts := []string{
		"ok?delay_ms=0", "ok?delay_ms=1", "long?delay_ms=0", "endless", "stall?ping_ms=1", "no-headers", "reset", "cut-abrupt?delay_ms=0",
		"reset-before", "header-drip?delay_ms=1", "short-body", "http-503", "rate-limited", "no-done-open?delay_ms=0",
		"late-chunks?delay_ms=0", "drip?delay_ms=0", "bulk?bytes=200000", "html-200", "crowded?limit=2", "cut-at?bytes=300&delay_ms=0",
	}
	endless := map[string]bool{"endless": true, "stall": true, "no-headers": true, "no-done-open": true}
	for _, http2 := range []bool{false, true} {
		u := start(t, fakeprovider.Options{HTTP2: http2})
		random := rand.New(rand.NewPCG(1, 2))
		var clients sync.WaitGroup
		for round := range 600 {
			model, wire := scripts[round%len(scripts)], wires[random.IntN(3)]
			patience := time.Duration(random.IntN(6000)) * time.Microsecond
			stream := round%7 != 0
			clients.Go(func() {
				ctx, leave := context.WithTimeout(t.Context(), patience)
				defer leave()
				u.send(u.request(ctx, wire, model, stream))
			})
			if round%16 == 0 {
				clients.Wait()
			}
		}
		clients.Wait()
		log, stats := u.settled(), u.fake.Stats()
		for range 100 { // what a client sent with its last breath may come in between
			if stats.Requests == len(log) && stats.InFlight == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
			log, stats = u.settled(), u.fake.Stats()
		}
		if len(log) < 200 {
			t.Errorf("only %d requests arrived", len(log))
		}
		aborted := 0
		for _, entry := range log {
			if entry.EndedAt == nil || entry.Finished == (entry.AbortedAt != nil) {
				t.Errorf("HTTP/2 %v, neither or both: %+v", http2, entry)
			}
			if endless[entry.Script] && entry.AbortedAt == nil {
				t.Errorf("HTTP/2 %v, nobody left: %+v", http2, entry)
			}
			if entry.AbortedAt != nil {
				aborted++
			}
		}
		if stats.Requests != len(log) || stats.Aborted != aborted || stats.Finished+aborted != len(log) || stats.InFlight != 0 {
			t.Errorf("%d in the log, %d aborted, and %+v", len(log), aborted, stats)
		}
	}
}

// A client that hangs up with the last event has not left early, however soon it does so.
func TestWhoLeavesBehindTheEndHasNotLeftEarly(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	last := map[string]string{"openai": "[DONE]", "anthropic": "message_stop", "gemini": "STOP"}
	var clients sync.WaitGroup
	for _, wire := range wires {
		for range 40 {
			clients.Go(func() {
				response, err := u.client.Do(u.request(t.Context(), wire, "ok?delay_ms=0&chunks=3", true))
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = response.Body.Close() }()
				for lines := bufio.NewScanner(response.Body); lines.Scan(); {
					if strings.Contains(lines.Text(), last[wire]) {
						return
					}
				}
				t.Errorf("%s: no end", wire)
			})
		}
	}
	clients.Wait()
	for _, entry := range u.settled() {
		if !entry.Finished {
			t.Errorf("%+v", entry)
		}
	}
}

func TestAResetForgetsWhatStillRuns(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	ctx, leave := context.WithCancel(t.Context())
	response, err := u.client.Do(u.request(ctx, "openai", "stall-first", true))
	if err != nil {
		t.Fatal(err)
	}
	u.fake.Reset()
	leave()
	_ = response.Body.Close()
	if got := u.ask("openai", "ok?delay_ms=0", true); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	if stats := u.fake.Stats(); stats.Requests != 1 || stats.MaxInFlight != 1 || len(u.settled()) != 1 {
		t.Errorf("%+v", stats)
	}
}
