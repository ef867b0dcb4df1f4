package retry

import (
	"sync"
	"time"
)

// window is how far a Budget looks back, in buckets of a second.
const window = 10

// Budget bounds the retries at one provider by its first attempts: when everything fails, retries
// must not be what keeps a provider down. A hedge counts as a retry.
type Budget struct {
	ratio float64
	floor int
	epoch time.Time

	mu      sync.Mutex
	buckets [window]bucket
	second  int64 // of the newest bucket, since epoch
	sum     bucket
}

type bucket struct{ first, again int }

// NewBudget returns the budget of one provider.
func (c Config) NewBudget(now time.Time) *Budget {
	return &Budget{ratio: c.BudgetRatio, floor: max(c.BudgetFloor, 0), epoch: now}
}

// First counts a first attempt.
func (b *Budget) First(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now).first++
	b.sum.first++
}

// Spend counts a retry, if there is room for it.
func (b *Budget) Spend(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	newest := b.turn(now)
	if float64(b.sum.again+1) > float64(b.sum.first)*b.ratio+float64(b.floor) {
		return false
	}
	newest.again++
	b.sum.again++
	return true
}

// turn forgets the buckets that are over and returns the newest. A clock that went back adds to
// the newest.
func (b *Budget) turn(now time.Time) *bucket {
	second := int64(now.Sub(b.epoch) / time.Second)
	for forgotten := 0; b.second < second && forgotten < window; forgotten++ {
		b.second++
		old := &b.buckets[b.second%window]
		b.sum.first -= old.first
		b.sum.again -= old.again
		*old = bucket{}
	}
	b.second = max(b.second, second)
	return &b.buckets[b.second%window]
}
