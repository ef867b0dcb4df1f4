// Package anthropic speaks Anthropic's Messages API, version 2023-06-01.
//
// Where the format differs from what a call can say:
//   - max_tokens is required: a call that names none gets 4096.
//   - temperature ends at 1: what is above becomes 1.
//   - system messages, wherever they stand, become the system prompt.
//   - seed has no counterpart and is not sent.
//   - response_format json_schema becomes output_config.format; json_object, which has no counterpart,
//     becomes a sentence at the end of the system prompt.
//   - extended thinking is not switched on; where a model thinks all the same, its thinking is
//     reasoning, and redacted thinking is progress.
//
// Everything else is the provider's to judge, like a conversation that does not begin with the user,
// or temperature and top_p together, which newer models refuse.
package anthropic

import (
	"net/http"

	"rex/fanout-service/provider"
)

const version = "2023-06-01"

type wire struct{}

// New returns a provider that reaches config.BaseURL, which ends before /messages, through client.
func New(config provider.Config, client *http.Client) *provider.Endpoint {
	return provider.NewEndpoint(config, client, wire{})
}

// Authorize implements provider.Wire.
func (wire) Authorize(header http.Header, secret string) {
	header.Set("Anthropic-Version", version)
	if secret != "" {
		header.Set("X-Api-Key", secret)
	}
}
