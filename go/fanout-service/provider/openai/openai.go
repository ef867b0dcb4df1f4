// Package openai speaks the OpenAI chat completions format, which most servers understand:
// OpenAI, OpenRouter, Groq, Mistral, vLLM, Ollama, llama.cpp and many more.
package openai

import (
	"net/http"

	"rex/fanout-service/provider"
)

type wire struct{}

// New returns a provider that reaches config.BaseURL, which ends before /chat/completions, through
// client.
func New(config provider.Config, client *http.Client) *provider.Endpoint {
	return provider.NewEndpoint(config, client, wire{})
}

// Authorize implements provider.Wire.
func (wire) Authorize(header http.Header, secret string) {
	if secret != "" {
		header.Set("Authorization", "Bearer "+secret)
	}
}
