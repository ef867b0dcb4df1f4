// Package gemini speaks Google's Gemini API: models/{model}:streamGenerateContent as an event
// stream, and :generateContent for an answer in one piece. The key travels in a header, never in
// the address, where logs would show it.
//
// Where the format differs from what a call can say:
//   - system messages, wherever they stand, become the system instruction.
//   - response_format json_object becomes the MIME type application/json; json_schema is sent as
//     responseJsonSchema besides.
//   - thoughts are asked for only where the call wants them: models that do not think refuse the
//     request for them.
//   - an image's address goes out as fileData, which the API fetches itself; models that fetch
//     none refuse the request.
package gemini

import (
	"net/http"

	"rex/fanout-service/provider"
)

type wire struct{}

// New returns a provider that reaches config.BaseURL, which ends before /models, through client.
func New(config provider.Config, client *http.Client) *provider.Endpoint {
	return provider.NewEndpoint(config, client, wire{})
}

// Authorize implements provider.Wire.
func (wire) Authorize(header http.Header, secret string) {
	if secret != "" {
		header.Set("X-Goog-Api-Key", secret)
	}
}
