package telemetry

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"

	fanout "rex/fanout-service"
	"rex/fanout-service/engine"
)

// Names of attributes that OpenTelemetry's conventions do not have.
const (
	attrFanoutID     = attribute.Key("rex.fanout.id")
	attrRequestID    = attribute.Key("rex.request.id")
	attrWorkspace    = attribute.Key("rex.workspace")
	attrWidth        = attribute.Key("rex.fanout.calls")
	attrCallID       = attribute.Key("rex.call.id")
	attrAttemptsMade = attribute.Key("rex.call.attempts")
	attrCacheResult  = attribute.Key("rex.cache")
	attrNumber       = attribute.Key("rex.attempt.number")
	attrReason       = attribute.Key("rex.attempt.reason")
	attrKeyID        = attribute.Key("rex.key.id")
	attrOutcome      = attribute.Key("rex.outcome")
	attrQueueMS      = attribute.Key("rex.queue_ms")
	attrConnectMS    = attribute.Key("rex.connect_ms")
	attrFirstTokenMS = attribute.Key("rex.first_token_ms")
)

// NewSpans makes a span of every fan-out, call and attempt, each the parent of the next. Attempts
// follow the conventions for spans of generative AI clients, without content. Attributes are set
// once, at the end: a span costs little more than its creation.
func NewSpans(tracers trace.TracerProvider) engine.Observer {
	return &spans{tracers.Tracer("rex/fanout-service")}
}

type spans struct{ tracer trace.Tracer }

func (s *spans) Fanout(ctx context.Context, request *fanout.Request) (context.Context, func(*engine.FanoutRecord)) {
	ctx, span := s.tracer.Start(ctx, "fanout", trace.WithSpanKind(trace.SpanKindServer))
	return ctx, func(record *engine.FanoutRecord) {
		defer span.End()
		if !span.IsRecording() {
			return
		}
		attrs := append(make([]attribute.KeyValue, 0, 5), attrFanoutID.String(request.ID),
			attrWidth.Int(len(request.Calls)), attrOutcome.String(record.Outcome))
		if request.RequestID != "" {
			attrs = append(attrs, attrRequestID.String(request.RequestID))
		}
		if request.Workspace != "" {
			attrs = append(attrs, attrWorkspace.String(request.Workspace))
		}
		span.SetAttributes(attrs...)
	}
}

func (s *spans) Call(ctx context.Context, _ *fanout.Request, call *fanout.Call) (context.Context, func(*engine.CallRecord)) {
	ctx, span := s.tracer.Start(ctx, "call")
	return ctx, func(record *engine.CallRecord) {
		defer span.End()
		if !span.IsRecording() {
			return
		}
		span.SetAttributes(append(make([]attribute.KeyValue, 0, 7), attrCallID.String(call.ID),
			providerName(record.Target.Provider), semconv.GenAIRequestModel(record.Target.Model),
			attrAttemptsMade.Int(record.Attempts), attrCacheResult.String(string(record.Cache)),
			attrOutcome.String(record.Outcome))...)
		fail(span, record.Outcome, record.Failure)
	}
}

func (s *spans) Attempt(ctx context.Context, _ *fanout.Request, call *fanout.Call, attempt *engine.Attempt) (context.Context, func(*engine.AttemptRecord)) {
	ctx, span := s.tracer.Start(ctx, "chat "+attempt.Target.Model, trace.WithSpanKind(trace.SpanKindClient))
	// The engine may use its Attempt again.
	made := *attempt
	return ctx, func(record *engine.AttemptRecord) {
		defer span.End()
		if !span.IsRecording() {
			return
		}
		attrs := append(make([]attribute.KeyValue, 0, 20), semconv.GenAIOperationNameChat,
			providerName(made.Target.Provider), semconv.GenAIRequestModel(made.Target.Model),
			attrNumber.Int(made.Number), attrReason.String(string(made.Reason)), attrOutcome.String(record.Outcome))
		if record.KeyID != "" {
			attrs = append(attrs, attrKeyID.String(record.KeyID))
		}
		attrs = appendParams(attrs, &call.Params)
		timing := &record.Timing
		for _, span := range [...]struct {
			key  attribute.Key
			took int64
		}{
			{attrQueueMS, between(timing.Queued, timing.Admitted)},
			{attrConnectMS, between(timing.Admitted, timing.Connect)},
			{attrFirstTokenMS, between(timing.Admitted, timing.FirstToken)},
		} {
			if span.took >= 0 {
				attrs = append(attrs, span.key.Int64(span.took))
			}
		}
		if record.Usage != nil {
			attrs = append(attrs, semconv.GenAIUsageInputTokens(int(record.Usage.InputTokens)),
				semconv.GenAIUsageOutputTokens(int(record.Usage.OutputTokens)))
		}
		span.SetAttributes(attrs...)
		fail(span, record.Outcome, record.Failure)
	}
}

func appendParams(attrs []attribute.KeyValue, params *fanout.Params) []attribute.KeyValue {
	if params.MaxTokens != nil {
		attrs = append(attrs, semconv.GenAIRequestMaxTokens(int(*params.MaxTokens)))
	}
	if params.Temperature != nil {
		attrs = append(attrs, semconv.GenAIRequestTemperature(*params.Temperature))
	}
	if params.TopP != nil {
		attrs = append(attrs, semconv.GenAIRequestTopP(*params.TopP))
	}
	if params.Seed != nil {
		attrs = append(attrs, semconv.GenAIRequestSeed(int(*params.Seed)))
	}
	return attrs
}

// fail marks a span whose call or attempt failed. What somebody stopped on purpose is no error, nor
// is that a reader left, whatever failure that made.
func fail(span trace.Span, outcome string, failure *fanout.Failure) {
	if failure == nil {
		return
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(outcome))
	if failure.Status != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(failure.Status))
	}
	if !stopped(outcome) {
		span.SetStatus(codes.Error, failure.Message())
	}
}

// conventional holds the conventions' names of providers that we call otherwise.
var conventional = map[string]attribute.KeyValue{
	"google":  semconv.GenAIProviderNameGCPGemini,
	"mistral": semconv.GenAIProviderNameMistralAI,
}

func providerName(name string) attribute.KeyValue {
	if known, ok := conventional[name]; ok {
		return known
	}
	return semconv.GenAIProviderNameKey.String(name)
}

// TakeTrace lets requests that come with a W3C traceparent become part of the trace they name.
func TakeTrace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Traceparent") != "" {
			r = r.WithContext(propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header)))
		}
		next.ServeHTTP(w, r)
	})
}

// PassTrace adds the traceparent of ctx's span to the header of a request to a provider. Not its
// tracestate: that may hold what others wrote for their own systems.
func PassTrace(ctx context.Context, header http.Header) {
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(header))
	header.Del("Tracestate")
}
