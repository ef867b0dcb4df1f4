package cache

import (
	"sync"
	"time"
)

const (
	firstRest   = time.Second
	longestRest = 5 * time.Second
)

// rest keeps calls away from a Redis that did not answer: for one second, then, as long as it does
// not, one call each 2, 4 and at last 5 s finds out whether it does again. So a Redis that hangs
// delays the calls that are waiting for it when it begins to, and hardly any after.
type rest struct {
	mu       sync.Mutex
	failures int // in a row; 0: it answers
	until    time.Time
}

// admits says whether Redis may be asked now. Who is let in to find out counts as failed until
// answered: the others stay away meanwhile.
func (r *rest) admits(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures > 0 {
		if now.Before(r.until) {
			return false
		}
		r.begin(now)
	}
	return true
}

// failed begins the rest and says whether this is news. The failures of those who asked at the same
// time are the same failure.
func (r *rest) failed(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures > 0 {
		return false
	}
	r.begin(now)
	return true
}

// answered ends the rest and says whether this is news.
func (r *rest) answered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.failures
	r.failures = 0
	return before > 0
}

func (r *rest) up() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures == 0
}

func (r *rest) begin(now time.Time) {
	r.until = now.Add(min(firstRest<<min(r.failures, 8), longestRest))
	r.failures++
}
