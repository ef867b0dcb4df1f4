package openai

import (
	"encoding/json"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// requestBody writes a call in the provider's words. What the call leaves open is not sent.
func requestBody(call *fanout.Call, quirks provider.Quirks) ([]byte, error) {
	body := map[string]any{
		"model":    call.Model,
		"messages": messages(call.Messages),
		"stream":   true,
	}
	if !quirks.OmitStreamOptions {
		body["stream_options"] = map[string]bool{"include_usage": true}
	}
	params := call.Params
	if params.MaxTokens != nil {
		body[or(quirks.MaxTokensParam, "max_tokens")] = *params.MaxTokens
	}
	if params.Temperature != nil {
		body["temperature"] = *params.Temperature
	}
	if params.TopP != nil {
		body["top_p"] = *params.TopP
	}
	if params.Seed != nil {
		body[or(quirks.SeedParam, "seed")] = *params.Seed
	}
	if len(params.Stop) > 0 {
		body["stop"] = params.Stop
	}
	if params.ResponseFormat != nil {
		body["response_format"] = params.ResponseFormat
	}
	return json.Marshal(body)
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func messages(given []fanout.Message) []message {
	out := make([]message, len(given))
	for i := range given {
		out[i] = message{given[i].Role, given[i].Content}
	}
	return out
}

func or(name, fallback string) string {
	if name != "" {
		return name
	}
	return fallback
}
