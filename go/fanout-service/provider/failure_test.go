package provider_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/provider/providertest"
)

// transport answers without a network.
type transport func(*http.Request) *http.Response

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// stalls is the rest of a body that does not come before its exchange ends.
type stalls struct{ exchange context.Context }

func (s stalls) Read([]byte) (int, error) {
	<-s.exchange.Done()
	return 0, s.exchange.Err()
}

// stream asks an upstream without a network.
func stream(ctx context.Context, t *testing.T, client *http.Client) (fanout.Answer, *fanout.Failure) {
	t.Helper()
	subject := openai.New(provider.Config{BaseURL: "http://offline"}, client)
	answer, err := subject.Stream(ctx, providertest.Call(), fanout.NewKey(providertest.Key), &providertest.Sink{T: t})
	var failure *fanout.Failure
	if !errors.As(err, &failure) {
		t.Fatalf("%v is no *fanout.Failure", err)
	}
	return answer, failure
}

func TestARefusalIsOneAlthoughItsBodyStalls(t *testing.T) {
	for _, row := range []struct {
		name       string
		ends, want fanout.Kind
	}{
		{"nothing ends the attempt", "", fanout.RateLimited},
		{"a timer of the attempt ends it", fanout.TimeoutFirstToken, fanout.RateLimited},
		{"the user ends it", fanout.StopUser, fanout.StopUser},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancelCause(t.Context())
				defer stop(nil)
				if row.ends != "" {
					time.AfterFunc(time.Second, func() { stop(fanout.Fail(row.ends, "")) })
				}
				_, failure := stream(ctx, t, &http.Client{Transport: transport(func(r *http.Request) *http.Response {
					return &http.Response{
						StatusCode: http.StatusTooManyRequests, Request: r, Header: http.Header{"Retry-After": {"7"}},
						Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"error":`), stalls{r.Context()})),
					}
				})})
				if failure.Kind != row.want {
					t.Errorf("%v, want %s", failure, row.want)
				}
				if row.want == fanout.RateLimited && (failure.Status != http.StatusTooManyRequests || failure.RetryAfter != 7*time.Second) {
					t.Errorf("%+v", failure)
				}
			})
		})
	}
}

func TestWhatWasCountedBeforeAFailureIsTold(t *testing.T) {
	const counted = `data: {"choices":[{"delta":{"content":"Hi"}}],"usage":{"prompt_tokens":120000,"completion_tokens":900}}` + "\n\n"
	for want, rest := range map[fanout.Kind]string{
		fanout.Incomplete:    "",
		fanout.ServerError:   `data: {"error":{"message":"x"}}` + "\n\n",
		fanout.ContentFilter: `data: {"choices":[{"delta":{},"finish_reason":"content_filter"}]}` + "\n\n",
	} {
		answer, failure := stream(t.Context(), t, providertest.Offline("text/event-stream", counted+rest, nil))
		if failure.Kind != want || answer.InputTokens == nil || *answer.InputTokens != 120000 ||
			answer.OutputTokens == nil || *answer.OutputTokens != 900 {
			t.Errorf("%v, want %s, and the counts: %+v", failure, want, answer)
		}
	}
	ctx, stop := context.WithCancelCause(t.Context())
	answer, failure := stream(ctx, t, providertest.Offline("text/event-stream", counted, func(exchange context.Context) error {
		stop(fanout.Fail(fanout.StopUser, ""))
		<-exchange.Done()
		return exchange.Err()
	}))
	if failure.Kind != fanout.StopUser || answer.InputTokens == nil || *answer.InputTokens != 120000 {
		t.Errorf("%v: %+v", failure, answer)
	}
}

func TestAnAnswerWithoutTextIsNoFaultOfTheProviderWhereTheLengthLeftNoRoom(t *testing.T) {
	for reason, fault := range map[string]bool{"length": false, "stop": true} {
		body := `data: {"choices":[{"delta":{"reasoning":"Hm"},"finish_reason":"` + reason + `"}]}` + "\n\ndata: [DONE]\n\n"
		_, failure := stream(t.Context(), t, providertest.Offline("text/event-stream", body, nil))
		if failure.Kind != fanout.BadUpstreamResponse || failure.ProviderFault() != fault {
			t.Errorf("%s: %v, a fault of the provider: %v", reason, failure, failure.ProviderFault())
		}
	}
}
