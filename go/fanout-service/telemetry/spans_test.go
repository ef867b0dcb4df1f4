package telemetry_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
	"rex/fanout-service/internal/testlog"
	"rex/fanout-service/telemetry"
)

// collector receives spans by OTLP over HTTP, as a real one does.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	refuse   bool
	bodies   bytes.Buffer
	spans    []*tracepb.Span
	resource map[string]string
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	var batch otlp.ExportTraceServiceRequest
	if r.URL.Path != "/v1/traces" || c.refuse || proto.Unmarshal(body, &batch) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.bodies.Write(body)
	for _, of := range batch.GetResourceSpans() {
		c.resource = attributes(of.GetResource().GetAttributes())
		for _, scope := range of.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func attributes(pairs []*common.KeyValue) map[string]string {
	found := map[string]string{}
	for _, pair := range pairs {
		found[pair.GetKey()] = strings.Trim(strings.SplitN(pair.GetValue().String(), ":", 2)[1], `"`)
	}
	return found
}

func (c *collector) byName() map[string][]*tracepb.Span {
	named := map[string][]*tracepb.Span{}
	for _, span := range c.spans {
		named[span.GetName()] = append(named[span.GetName()], span)
	}
	return named
}

const outside = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestSpansOfAFanoutContinueTheTraceOfItsRequest(t *testing.T) {
	collector := newCollector(t)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	exporter, err := telemetry.NewExporter(t.Context(), "1.2.3", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	spans := telemetry.NewSpans(exporter.Tracers())
	handler := telemetry.TakeTrace(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		observe(r.Context(), spans, newRequest("gemini-x", 1), answered())
		observe(r.Context(), spans, newRequest("gemini-y", 1), refused(fanout.Overloaded, 529), answered())
		left := refused(fanout.Internal, 0)
		left.Outcome = engine.OutcomeReaderGone
		observe(r.Context(), spans, newRequest("gemini-z", 1), left)
	}))
	r := httptest.NewRequest(http.MethodPost, "/fanout", nil)
	r.Header.Set("Traceparent", outside)
	handler.ServeHTTP(httptest.NewRecorder(), r)
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	byName := collector.byName()
	for name, all := range byName {
		if got := hex(all[0].GetTraceId()); got != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%s is of trace %s", name, got)
		}
	}
	single, several, left := byName["chat gemini-x"], byName["chat gemini-y"], byName["chat gemini-z"]
	if len(collector.spans) != 8 || len(byName["fanout"]) != 3 || len(single) != 1 || len(several) != 3 || len(left) != 1 {
		t.Fatalf("spans: %v", byName)
	}
	root := byName["fanout"][0]
	if hex(root.GetParentSpanId()) != "b7ad6b7169203331" || root.GetKind() != tracepb.Span_SPAN_KIND_SERVER {
		t.Error("the fan-out does not continue the request's trace")
	}
	if hex(single[0].GetParentSpanId()) != hex(root.GetSpanId()) {
		t.Error("a call is not within its fan-out")
	}
	call := several[slices.IndexFunc(several, func(s *tracepb.Span) bool { return attributes(s.GetAttributes())["rex.call.id"] != "" })]
	attempts := slices.DeleteFunc(several, func(s *tracepb.Span) bool { return s == call })
	slices.SortFunc(attempts, func(a, b *tracepb.Span) int { return cmp.Compare(a.GetStartTimeUnixNano(), b.GetStartTimeUnixNano()) })
	for _, each := range attempts {
		if hex(each.GetParentSpanId()) != hex(call.GetSpanId()) {
			t.Error("an attempt is not within its call")
		}
		if each.GetStartTimeUnixNano() < call.GetStartTimeUnixNano() || each.GetEndTimeUnixNano() > call.GetEndTimeUnixNano() {
			t.Error("an attempt is outside the time of its call")
		}
	}
	if attempts[0].GetEndTimeUnixNano() > attempts[1].GetStartTimeUnixNano() {
		t.Error("the first attempt has not the moments it had")
	}
	answer := map[string]string{
		"gen_ai.operation.name": "chat", "gen_ai.provider.name": "gcp.gemini", "gen_ai.request.temperature": "0.2",
		"gen_ai.usage.input_tokens": "7", "gen_ai.usage.output_tokens": "12", "error.type": "",
		"rex.first_token_ms": "40", "rex.queue_ms": "5", "rex.key.id": "2", "rex.outcome": "finished",
	}
	with := func(also map[string]string) map[string]string {
		all := maps.Clone(answer)
		maps.Copy(all, also)
		return all
	}
	for _, want := range []struct {
		what   string
		span   *tracepb.Span
		failed bool
		attrs  map[string]string
	}{
		{"a call of one attempt", single[0], false, with(map[string]string{
			"gen_ai.request.model": "gemini-x", "rex.call.id": "A", "rex.call.attempts": "1", "rex.cache": "bypass", "rex.attempt.number": "",
		})},
		{"a call of two", call, false, map[string]string{
			"gen_ai.request.model": "gemini-y", "rex.call.id": "A", "rex.call.attempts": "2", "rex.outcome": "finished",
			// What only an attempt has would be counted twice.
			"gen_ai.operation.name": "", "gen_ai.usage.input_tokens": "", "rex.key.id": "", "error.type": "",
		}},
		{"its first attempt", attempts[0], true, map[string]string{
			"error.type": "overloaded", "http.response.status_code": "529", "rex.attempt.number": "1", "rex.attempt.reason": "first",
			"gen_ai.operation.name": "chat", "rex.outcome": "overloaded", "rex.call.id": "",
		}},
		{"its second", attempts[1], false, with(map[string]string{
			"gen_ai.request.model": "gemini-y", "rex.attempt.number": "2", "rex.attempt.reason": "retry",
		})},
		{"a call whose reader left", left[0], false, map[string]string{"error.type": "reader_gone", "rex.outcome": "reader_gone"}},
	} {
		got := attributes(want.span.GetAttributes())
		for name, value := range want.attrs {
			if got[name] != value {
				t.Errorf("%s: %s is %q, want %q", want.what, name, got[name], value)
			}
		}
		failed := want.span.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR
		if failed != want.failed || want.span.GetKind() != tracepb.Span_SPAN_KIND_CLIENT {
			t.Errorf("%s: status %v, kind %v", want.what, want.span.GetStatus(), want.span.GetKind())
		}
	}
	if got := attributes(root.GetAttributes()); got["rex.fanout.id"] != "run-1" || got["rex.workspace"] != "w" || got["rex.fanout.calls"] != "1" {
		t.Errorf("fan-out: %v", got)
	}
	if r := collector.resource; r["service.name"] != "rex-fanout" || r["service.version"] != "1.2.3" || r["deployment.environment.name"] != "test" {
		t.Errorf("resource: %v", r)
	}
	if bytes.Contains(collector.bodies.Bytes(), []byte(canary)) {
		t.Error("spans tell content")
	}
}

func TestAttemptsThatOverlapOrOutliveTheirCallHaveSpansOfTheirOwn(t *testing.T) {
	collector := newCollector(t)
	exporter, err := telemetry.NewExporter(t.Context(), "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	spans := telemetry.NewSpans(exporter.Tracers())
	passed := func(ctx context.Context) string {
		header := http.Header{}
		telemetry.PassTrace(ctx, header)
		if len(header) != 1 {
			t.Errorf("passed on: %v", header)
		}
		return header.Get("Traceparent")
	}
	handler := telemetry.TakeTrace(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		request, second := newRequest("gemini-x", 1), attempt
		first := engine.Attempt{Number: 1, Reason: fanout.First, Target: request.Calls[0].Target}
		record := answered()
		finished := engine.CallRecord{Outcome: engine.OutcomeFinished, Target: first.Target, Attempts: 2, Cache: engine.CacheMiss}

		call, over := spans.Call(r.Context(), request, &request.Calls[0])
		one, oneOver := spans.Attempt(call, request, &request.Calls[0], &first)
		two, twoOver := spans.Attempt(call, request, &request.Calls[0], &second)
		first.Number = 9 // the engine may use it again
		if passed(one) != passed(call) || passed(two) == passed(call) {
			t.Error("the first attempt's traceparent is not the call's, or the second's is")
		}
		twoOver(&record)
		oneOver(&record)
		over(&finished)

		call, over = spans.Call(r.Context(), request, &request.Calls[0])
		_, oneOver = spans.Attempt(call, request, &request.Calls[0], &attempt)
		over(&finished) // its reader left, others follow the attempt
		oneOver(&record)
		_, twoOver = spans.Attempt(call, request, &request.Calls[0], &second)
		twoOver(&record)
	}))
	r := httptest.NewRequest(http.MethodPost, "/fanout", nil)
	r.Header.Set("Traceparent", outside)
	r.Header.Set("Tracestate", "vendor=theirs")
	handler.ServeHTTP(httptest.NewRecorder(), r)
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	within := map[string][]string{} // numbers of the attempts, by their call
	calls := 0
	for _, span := range collector.spans {
		got := attributes(span.GetAttributes())
		if got["rex.call.id"] != "" {
			calls++
			continue
		}
		within[hex(span.GetParentSpanId())] = append(within[hex(span.GetParentSpanId())], got["rex.attempt.number"])
	}
	if len(collector.spans) != 6 || calls != 2 || len(within) != 2 {
		t.Fatalf("%d calls, attempts %v", calls, within)
	}
	for _, numbers := range within {
		slices.Sort(numbers)
		if want := []string{"1", "3"}; !slices.Equal(numbers, want) && !slices.Equal(numbers, []string{"3", "3"}) {
			t.Errorf("attempts %v", numbers)
		}
	}
}

func TestSpansThatCannotBeSentAreCountedAndSaidOnce(t *testing.T) {
	collector := newCollector(t)
	collector.refuse = true
	var log testlog.Buffer
	exporter, err := telemetry.NewExporter(t.Context(), "1", slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	const made = 12000
	_, span := exporter.Tracers().Tracer("t").Start(t.Context(), "s")
	span.End()
	for range made - 1 {
		_, span := exporter.Tracers().Tracer("t").Start(t.Context(), "s")
		span.End()
	}
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if exporter.Dropped() != made {
		t.Errorf("%d of %d spans are counted as dropped", exporter.Dropped(), made)
	}
	if strings.Count(log.String(), "spans are not taken") != 1 {
		t.Errorf("log: %s", log.String())
	}
}

func TestACollectorThatIsGoneHoldsUpNobody(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	exporter, err := telemetry.NewExporter(t.Context(), "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, span := exporter.Tracers().Tracer("t").Start(t.Context(), "s")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_ = exporter.Shutdown(ctx) // it ends, though the exporter would try again for longer
	if exporter.Dropped() != 1 {
		t.Errorf("%d dropped", exporter.Dropped())
	}
}
