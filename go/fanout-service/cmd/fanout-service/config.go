package main

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	fanout "rex/fanout-service"
	"rex/fanout-service/api"
	"rex/fanout-service/httpapi"
	"rex/fanout-service/provider"
)

// environment is what the service reads of the outside; nothing else in this module does.
type environment struct {
	get func(string) string // "" when unset
	all []string            // "NAME=value"
}

// settings is everything the environment decides.
type settings struct {
	listen    string
	drain     time.Duration
	providers []provider.Config      // the configured ones
	known     []httpapi.ProviderInfo // all, configured or not
}

func readSettings(env environment) (settings, error) {
	s := settings{listen: env.get("REX_FANOUT_LISTEN"), drain: 10 * time.Second}
	if s.listen == "" {
		s.listen = "127.0.0.1:8099"
	}
	if raw := env.get("REX_FANOUT_DRAIN_SECONDS"); raw != "" {
		seconds, err := strconv.Atoi(raw)
		if err != nil || seconds < 0 {
			return s, fmt.Errorf("REX_FANOUT_DRAIN_SECONDS: %q is not a number of seconds", raw)
		}
		s.drain = time.Duration(seconds) * time.Second
	}
	rows, err := providerRows(env)
	if err != nil {
		return s, err
	}
	for _, row := range rows {
		config, configured, err := readProvider(env, row)
		if err != nil {
			return s, err
		}
		if configured {
			s.providers = append(s.providers, config)
		}
		s.known = append(s.known, httpapi.ProviderInfo{Name: row.Name, Title: row.Title, Configured: configured})
	}
	return s, nil
}

var customProvider = regexp.MustCompile(`^REX_PROVIDER_([A-Z][A-Z0-9_]{0,31})_BASE_URL$`)

// providerRows are the built-in providers and those that REX_PROVIDER_<NAME>_BASE_URL defines.
func providerRows(env environment) ([]api.Provider, error) {
	rows := api.Providers()
	slices.Sort(env.all)
	for _, pair := range env.all {
		variable, value, _ := strings.Cut(pair, "=")
		match := customProvider.FindStringSubmatch(variable)
		if match == nil || value == "" {
			continue
		}
		name := strings.ToLower(match[1])
		if slices.ContainsFunc(rows, func(row api.Provider) bool { return row.Name == name }) {
			return nil, fmt.Errorf("%s: %q is a built-in provider", variable, name)
		}
		rows = append(rows, api.Provider{
			Name: name, Title: name, BaseURLEnv: variable,
			APIKeyEnv: strings.TrimSuffix(variable, "BASE_URL") + "API_KEY",
		})
	}
	return rows, nil
}

// readProvider resolves one provider; configured says whether calls to it can be made.
func readProvider(env environment, row api.Provider) (config provider.Config, configured bool, err error) {
	config = provider.Config{Name: row.Name, BaseURL: row.BaseURL, Quirks: row.Quirks}
	if override := env.get(row.BaseURLEnv); override != "" {
		config.BaseURL = override
	}
	if config.BaseURL == "" {
		return config, false, nil
	}
	config.BaseURL = strings.TrimRight(config.BaseURL, "/")
	address, err := url.Parse(config.BaseURL)
	if err != nil || address.Scheme != "http" && address.Scheme != "https" || address.Host == "" ||
		address.User != nil || address.RawQuery != "" || address.Fragment != "" {
		// The value is not repeated: people put keys into addresses.
		return config, false, fmt.Errorf("%s: not an http(s) address without user, query and fragment", row.BaseURLEnv)
	}
	key := ""
	if row.APIKeyEnv != "" {
		if key, err = secret(env, row.APIKeyEnv); err != nil {
			return config, false, err
		}
	}
	config.Keys = []fanout.Key{fanout.NewKey(key)}
	return config, key != "" || !row.KeyRequired, nil
}

// secret reads NAME, or the file that NAME_FILE names.
func secret(env environment, name string) (string, error) {
	value := strings.TrimSpace(env.get(name))
	if path := env.get(name + "_FILE"); value == "" && path != "" {
		content, err := os.ReadFile(path) //nolint:gosec // the operator names the file
		if err != nil {
			return "", fmt.Errorf("%s_FILE: the file cannot be read", name)
		}
		value = strings.TrimSpace(string(content))
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return "", fmt.Errorf("%s: a key is printable ASCII without spaces", name)
	}
	return value, nil
}
