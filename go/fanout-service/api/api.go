// Package api holds the contract's data files for other packages.
package api

import (
	_ "embed"
	"encoding/json"

	"rex/fanout-service/provider"
)

//go:embed providers.json
var providersJSON []byte

// Provider is a row of providers.json.
type Provider struct {
	Name        string          `json:"name"`
	Title       string          `json:"title"`
	BaseURL     string          `json:"base_url"` // "" when only the environment can give one
	BaseURLEnv  string          `json:"base_url_env"`
	APIKeyEnv   string          `json:"api_key_env"` // "" when it takes none
	KeyRequired bool            `json:"key_required"`
	Wire        string          `json:"wire"` // the format it speaks: openai, anthropic or gemini
	Quirks      provider.Quirks `json:"quirks"`
}

// Providers returns the built-in providers.
func Providers() []Provider {
	var file struct {
		Providers []Provider `json:"providers"`
	}
	if err := json.Unmarshal(providersJSON, &file); err != nil {
		panic("providers.json: " + err.Error()) // it is compiled in, and read by a test
	}
	return file.Providers
}
