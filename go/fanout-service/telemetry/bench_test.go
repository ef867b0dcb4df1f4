package telemetry_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"rex/fanout-service/engine"
	"rex/fanout-service/telemetry"
)

// BenchmarkObservers is what observing costs a call of a fan-out of ten, with one attempt each.
func BenchmarkObservers(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer collector.Close()
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	exporter, err := telemetry.NewExporter(b.Context(), "1", slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = exporter.Shutdown(b.Context()) }()
	writer := telemetry.NewWriter(io.Discard)
	defer func() { _ = writer.Close() }()
	log := telemetry.NewLog(slog.New(slog.NewJSONHandler(writer, nil)))
	metrics, spans := telemetry.NewMetrics(nil), telemetry.NewSpans(exporter.Tracers())
	for name, observer := range map[string]engine.Observer{
		"log": log, "metrics": metrics, "spans": spans,
		"log and metrics": telemetry.Join(metrics, log), "all": telemetry.Join(spans, metrics, log),
	} {
		b.Run(name, func(b *testing.B) {
			request, record := newRequest("m", 10), answered()
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(request.Calls) {
				observe(b.Context(), observer, request, record)
			}
		})
	}
}
