package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	fanout "rex/fanout-service"
	"rex/fanout-service/cache"
	"rex/fanout-service/engine"
	"rex/fanout-service/httpapi"
	"rex/fanout-service/limit"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/anthropic"
	"rex/fanout-service/provider/gemini"
	"rex/fanout-service/provider/memory"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/telemetry"
)

// redisPrefix begins every key of ours in Redis.
const redisPrefix = "rex:"

// flushLimit bounds each of the things that are written on the way out.
const flushLimit = 2 * time.Second

// service is all parts, wired.
type service struct {
	engine  *engine.Engine
	handler http.Handler
	client  *http.Client                      // of all providers
	close   []func(ctx context.Context) error // in order
}

// newService wires the parts of s. It is to be closed when the engine has ended all calls.
func newService(ctx context.Context, s settings, out *telemetry.Writer, log *slog.Logger) (*service, error) {
	w := &service{}
	sources := telemetry.Sources{Log: out}
	var spans engine.Observer
	if s.spans {
		exporter, err := telemetry.NewExporter(ctx, version, log)
		if err != nil {
			return nil, err
		}
		sources.Spans, spans = exporter, telemetry.NewSpans(exporter.Tracers())
		w.close = append(w.close, exporter.Shutdown)
	}
	if s.redis != nil {
		// Not its own words: they name the address. Limits and cache say themselves when it is gone.
		logging.Disable()
		client := redis.NewClient(s.redis)
		sources.Store = cache.NewStore(client, redisPrefix)
		sources.Shared = limit.NewShared(client, redisPrefix, log)
		w.close = append(w.close, func(context.Context) error { return client.Close() })
	}
	sources.Limiter = limit.New(s.limits, sources.Shared, log)
	if s.cache != nil {
		sources.Cache = cache.New(*s.cache, sources.Store, log)
		// Before Redis is closed: what is still to be written goes there.
		w.close = append([]func(context.Context) error{sources.Cache.Close}, w.close...)
	}
	var upstreams map[string]engine.Upstream
	upstreams, w.client = s.upstreams()
	w.close = append(w.close, func(context.Context) error { w.client.CloseIdleConnections(); return nil })

	// Spans come first: the others then see a context that knows its trace.
	metrics := telemetry.NewMetrics(s.workspaces)
	w.engine = engine.New(
		engine.Config{MaxConnections: s.maxConnections, MaxBytes: s.maxBytes, Retry: s.retry},
		engine.Parts{
			Upstreams: upstreams, Limiter: sources.Limiter, Cache: sources.Cache, Log: log,
			Observer: telemetry.Join(spans, metrics, telemetry.NewLog(log)),
		})
	sources.Engine = w.engine
	metrics.Watch(sources)
	w.handler = httpapi.New(w.engine, httpapi.Options{
		Version: version, Providers: s.providers.known, MaxBody: s.maxBody, Metrics: metrics,
	})
	if s.spans {
		w.handler = telemetry.TakeTrace(w.handler)
	}
	return w, nil
}

// upstreams are the configured providers, and the client that reaches them.
func (s *settings) upstreams() (map[string]engine.Upstream, *http.Client) {
	client := provider.NewClient(provider.NewGuard(s.allowed, s.providers.written))
	upstreams := map[string]engine.Upstream{}
	long := memory.New(s.maxBytes)
	for _, config := range s.providers.configs {
		config.Memory = long
		if s.spans && s.passTrace {
			config.Inject = telemetry.PassTrace
		}
		upstreams[config.Name] = engine.Upstream{Provider: newProvider(config, client), Keys: config.Keys}
	}
	return upstreams, client
}

// newProvider returns a provider that speaks the configured wire format.
func newProvider(config provider.Config, client *http.Client) fanout.Provider {
	switch config.Wire {
	case provider.WireAnthropic:
		return anthropic.New(config, client)
	case provider.WireGemini:
		return gemini.New(config, client)
	default:
		return openai.New(config, client)
	}
}

// Close writes what waits to be written, and lets go of what the parts hold.
func (w *service) Close(log *slog.Logger) {
	for _, each := range w.close {
		ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
		if err := each(ctx); err != nil && !errors.Is(err, context.Canceled) {
			// Not the error: it may name an address that holds a password.
			log.Warn("not all was written on the way out", "type", fmt.Sprintf("%T", err))
		}
		cancel()
	}
}
