package telemetry

import (
	"context"
	"fmt"
	"log/slog"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"
)

// Exporter sends spans to a collector by OTLP over HTTP. The standard OTEL_* variables say where
// to and how: the SDK reads them.
type Exporter struct {
	provider *sdk.TracerProvider
	batches  *batcher
}

// NewExporter returns an Exporter, to be shut down. A collector that cannot be reached is no
// error: spans are dropped and counted.
func NewExporter(ctx context.Context, version string, log *slog.Logger) (*Exporter, error) {
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)
	}
	// What comes later wins: the environment may rename the service.
	about, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName("rex-fanout"), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	batches := newBatcher(client, log)
	return &Exporter{sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithSpanProcessor(batches)), batches}, nil
}

// Tracers makes the spans that the Exporter sends.
func (e *Exporter) Tracers() trace.TracerProvider { return e.provider }

// Dropped counts spans that were never sent: too many waited, or the collector did not take them.
func (e *Exporter) Dropped() int64 { return e.batches.dropped.Load() }

// Shutdown sends what waits, until ctx ends.
func (e *Exporter) Shutdown(ctx context.Context) error { return e.provider.Shutdown(ctx) }
