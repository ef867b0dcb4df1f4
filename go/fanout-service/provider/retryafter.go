package provider

import (
	"net/http"
	"strconv"
	"time"
)

// longestWait is the longest time to wait that is believed. A longer one is nonsense, which would
// shut a key for a day: it counts as not told.
const longestWait = 24 * time.Hour

// RetryAfter reads how long the provider asks to wait: Retry-After-Ms, or Retry-After in seconds
// (whole or not) or as a date. Absent, past and unreadable values, and those of more than a day, are 0.
func RetryAfter(header http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(header.Get("Retry-After-Ms"), 64); err == nil {
		return scale(ms, time.Millisecond)
	}
	value := header.Get("Retry-After")
	if s, err := strconv.ParseFloat(value, 64); err == nil {
		return scale(s, time.Second)
	}
	if date, err := http.ParseTime(value); err == nil {
		return bounded(date.Sub(now))
	}
	return 0
}

// bounded is the wait where it is believed, else 0.
func bounded(wait time.Duration) time.Duration {
	if wait < 0 || wait > longestWait {
		return 0
	}
	return wait
}

// scale multiplies without overflow; not-a-number becomes 0.
func scale(n float64, unit time.Duration) time.Duration {
	if !(n > 0) {
		return 0
	}
	return bounded(time.Duration(min(n, 1e8) * float64(unit)))
}
