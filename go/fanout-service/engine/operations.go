package engine

import (
	"context"

	"rex/fanout-service/cache"
	"rex/fanout-service/limit"
)

// Targets tells how every target stands that was asked for lately.
func (e *Engine) Targets() []limit.TargetState { return e.limiter.Targets() }

// CacheStats are those of the cache; ok is false without one.
func (e *Engine) CacheStats() (stats cache.Stats, ok bool) {
	if e.cache == nil {
		return cache.Stats{}, false
	}
	return e.cache.Stats(), true
}

// Purge forgets every answer of a workspace, also those on their way; see cache.Purge.
func (e *Engine) Purge(ctx context.Context, workspace string) error {
	if e.cache == nil {
		return nil
	}
	return e.cache.Purge(ctx, workspace)
}
