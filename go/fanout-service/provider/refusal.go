package provider

import (
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	fanout "rex/fanout-service"
)

// refusal says why a response holds no answer of the form asked for, nil when it may. abandon ends
// the exchange, when the body of the refusal stalls.
func refusal(response *http.Response, whole bool, abandon func()) *fanout.Failure {
	encoding := response.Header.Get("Content-Encoding")
	compressed := encoding != "" && encoding != "identity"
	if response.StatusCode == http.StatusOK && !compressed && isForm(response.Header.Get("Content-Type"), whole) {
		return nil
	}
	// Read for its codes only; when it cannot be read, the status has to do.
	timer := time.AfterFunc(errorBodyTime, abandon)
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
	timer.Stop()
	object, isError := errorObject(body)
	switch {
	case response.StatusCode >= 400:
		f := faultOf(object)
		failure := &fanout.Failure{Kind: f.refine(fanout.StatusKind(response.StatusCode)), Status: response.StatusCode}
		failure.Crowded = failure.Kind == fanout.RateLimited && f.crowded
		failure.RetryAfter = RetryAfter(response.Header, time.Now())
		if failure.RetryAfter == 0 {
			failure.RetryAfter = f.retryAfter
		}
		// Not in any specification: OpenAI and Anthropic send it, and their own clients obey it.
		failure.Lasting = response.Header.Get("X-Should-Retry") == "false"
		return failure
	case response.StatusCode != http.StatusOK:
		failure := &fanout.Failure{Kind: fanout.StatusKind(response.StatusCode), Status: response.StatusCode}
		failure.Fact = "no answer"
		if response.StatusCode >= 300 {
			failure.Fact = "redirects are not followed"
		}
		return failure
	case compressed:
		return fanout.Fail(fanout.BadUpstreamResponse, "compressed")
	case isError:
		return faultOf(object).failure("an error instead of an answer")
	case whole:
		return fanout.Fail(fanout.BadUpstreamResponse, "not JSON")
	default:
		return fanout.Fail(fanout.BadUpstreamResponse, "not an event stream")
	}
}

// isForm says whether a content type may be what was asked for. Servers that name none, or plain
// text, are taken at their body.
func isForm(contentType string, whole bool) bool {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil, media == "text/plain":
		return true
	case whole:
		return media == "application/json" || strings.HasSuffix(media, "+json")
	default:
		return media == "text/event-stream"
	}
}
