package cache_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
)

// payer reads a flight and adds up what it has to pay for.
type payer struct {
	*cache.Follower
	paid int64
	gone bool
}

// read takes what is there.
func (p *payer) read(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for !p.gone {
		events, err := p.Next(ctx, nil)
		if err != nil {
			return
		}
		for _, event := range events {
			if event.Usage != nil && p.Leads() {
				p.paid += event.Usage.OutputTokens
			}
			p.gone = p.gone || event.Type == fanout.Finished // it leaves a while later
		}
	}
}

// leave ends the reading before the end was read.
func (p *payer) leave() (last bool) {
	unread := p.HandOver()
	for i, event := range unread.Events {
		if event.Usage != nil && i >= unread.Own {
			p.paid += event.Usage.OutputTokens
		}
	}
	p.gone = true
	return unread.Last
}

// Readers of any pace come and go; each attempt is paid for once, by whoever leads or led.
func TestWhoeverLeadsEachAttemptIsPaidForOnce(t *testing.T) {
	story := []fanout.Event{
		{Type: fanout.Started, Attempt: 1}, {Type: fanout.Chunk, Text: []byte("a")},
		{Type: fanout.AttemptFailed, Attempt: 1, Usage: &fanout.Usage{OutputTokens: 1}},
		{Type: fanout.Started, Attempt: 2}, {Type: fanout.Chunk, Text: []byte("b")},
		{Type: fanout.AttemptFailed, Attempt: 2, Usage: &fanout.Usage{OutputTokens: 10}},
		{Type: fanout.Started, Attempt: 3}, {Type: fanout.Chunk, Text: []byte("c")},
		{Type: fanout.Finished, Attempt: 3, Usage: &fanout.Usage{OutputTokens: 100}, CachedAge: fanout.Never},
	}
	for seed := range uint64(500) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 2))
			c := newFlights()
			flights := make(chan *cache.Flight, 1)
			lead := func(ctx context.Context, f *cache.Flight) { flights <- f; <-ctx.Done() }
			var payers []*payer
			join := func() {
				payers = append(payers, &payer{Follower: c.Join(t.Context(), "w", digest(1), time.Time{}, lead)})
			}
			join()
			flight := <-flights
			spent, deserted := int64(0), false
			for i := range len(story) + 3 { // and some leave behind the end
				if i < len(story) {
					for range random.IntN(2) {
						join()
					}
					flight.Publish(&story[i])
					if story[i].Usage != nil {
						spent += story[i].Usage.OutputTokens
					}
				}
				for _, each := range payers {
					switch {
					case each.gone:
					case random.IntN(3) == 0:
						each.read(t)
					case random.IntN(5) == 0:
						deserted = each.leave()
					}
				}
				if deserted {
					break
				}
			}
			paid := int64(0)
			for _, each := range payers {
				each.read(t)
				if !each.gone { // the answer was never finished
					each.leave()
				}
				each.Leave()
				paid += each.paid
			}
			if paid != spent {
				t.Errorf("seed %d: %d was spent, %d paid", seed, spent, paid)
			}
		})
	}
}

func TestOfAnAnswerOnItsWayTheLastWhoLeavesPays(t *testing.T) {
	c := newFlights()
	published := make(chan struct{})
	lead := func(ctx context.Context, f *cache.Flight) {
		publish(f, "started", "chunk:a")
		close(published)
		<-ctx.Done()
	}
	first := c.Join(t.Context(), "w", digest(1), time.Time{}, lead)
	second := c.Join(t.Context(), "w", digest(1), time.Time{}, lead)
	<-published
	if _, err := first.Next(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if unread := first.HandOver(); unread.Last || len(unread.Events) > 0 {
		t.Errorf("the first is left with %+v, though another follows", unread)
	}
	if unread := second.HandOver(); !unread.Last || len(unread.Events) != 2 || unread.Own != 1 {
		t.Errorf("the last is left with %+v, nobody else pays for the attempt under way", unread)
	}
	for _, each := range []*cache.Follower{first, second} {
		if unread := each.HandOver(); unread.Last || len(unread.Events) > 0 {
			t.Errorf("who has left pays again: %+v", unread)
		}
	}
}
