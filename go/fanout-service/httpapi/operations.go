package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"rex/fanout-service/limit"
)

const (
	maxTargets = 500             // told at once: names of models come with requests, so there may be many
	purgeLimit = 5 * time.Second // for a purge; Redis is searched for it
)

// target is a line of GET /targets.
type target struct {
	Provider  string `json:"provider"`
	Model     string `json:"model"`
	Key       string `json:"key"`
	InFlight  int    `json:"in_flight"`
	Limit     *int   `json:"limit"`
	Queued    int    `json:"queued"`
	Breaker   string `json:"breaker"`
	Refused   bool   `json:"refused"`
	ResumesMS *int64 `json:"resumes_ms"`
	AskedMS   *int64 `json:"asked_ms"`
}

// cached is what the cache holds in memory.
type cached struct {
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`
}

// targets tells how the providers stand: what is in trouble first, then what was asked last.
func (a *api) targets(w http.ResponseWriter, _ *http.Request) {
	states := a.engine.Targets()
	slices.SortFunc(states, func(one, other limit.TargetState) int {
		return cmp.Or(
			cmp.Compare(troubled(&other), troubled(&one)), other.Asked.Compare(one.Asked),
			cmp.Compare(one.Provider, other.Provider), cmp.Compare(one.Model, other.Model), cmp.Compare(one.KeyID, other.KeyID),
		)
	})
	told := states[:min(len(states), maxTargets)]
	rows, now := make([]target, len(told)), time.Now()
	for i := range told {
		rows[i] = rowOf(&told[i], now)
	}
	answer := map[string]any{"targets": rows, "left_out": len(states) - len(told), "cache": nil}
	if stats, ok := a.engine.CacheStats(); ok {
		answer["cache"] = cached{stats.Entries, stats.Bytes}
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, answer)
}

// troubled is 1 for a target that is kept back.
func troubled(s *limit.TargetState) int {
	if s.Refused || s.Breaker != "closed" || !s.Resumes.IsZero() {
		return 1
	}
	return 0
}

func rowOf(s *limit.TargetState, now time.Time) target {
	row := target{
		Provider: s.Provider, Model: s.Model, Key: s.KeyID, InFlight: s.InFlight, Queued: s.Queued,
		Breaker: s.Breaker, Refused: s.Refused,
	}
	if s.Limit > 0 {
		row.Limit = &s.Limit
	}
	if !s.Resumes.IsZero() {
		left := max(0, s.Resumes.Sub(now).Milliseconds())
		row.ResumesMS = &left
	}
	if !s.Asked.IsZero() {
		ago := max(0, now.Sub(s.Asked).Milliseconds())
		row.AskedMS = &ago
	}
	return row
}

// purge forgets the answers of a workspace. What is in memory is forgotten also where Redis fails.
func (a *api) purge(w http.ResponseWriter, r *http.Request) {
	workspace := r.PathValue("workspace")
	if !idForm.MatchString(workspace) {
		refuse(w, invalid("workspace", "Expected 1 to 128 letters, digits, dots, colons, dashes and underscores."))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), purgeLimit)
	defer cancel()
	if a.engine.Purge(ctx, workspace) != nil {
		w.Header().Set("Retry-After", retryAfter)
		refuse(w, &refusal{http.StatusServiceUnavailable, "overloaded", "Redis did not forget all answers; ask again.", ""})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
