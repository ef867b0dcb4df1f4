package main

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	fanout "rex/fanout-service"
	"rex/fanout-service/api"
	"rex/fanout-service/httpapi"
	"rex/fanout-service/provider"
)

// providers are what the environment configures of them.
type providers struct {
	configs []provider.Config      // the configured ones
	known   []httpapi.ProviderInfo // all, configured or not
	written []*url.URL             // the addresses an operator wrote, or this repository did
}

func (r *reader) providers() providers {
	var all providers
	for _, row := range r.providerRows() {
		config, address := r.provider(row)
		if address != nil {
			all.written = append(all.written, address)
		}
		configured := address != nil && (config.Keys[0].Reveal() != "" || !row.KeyRequired)
		if configured {
			all.configs = append(all.configs, config)
		}
		all.known = append(all.known, httpapi.ProviderInfo{Name: row.Name, Title: row.Title, Configured: configured})
	}
	return all
}

// customPart is what belongs to such a provider besides its address.
var customPart = regexp.MustCompile(`^(REX_PROVIDER_[A-Z][A-Z0-9_]{0,31}_)(API_KEY|WIRE)(_FILE)?$`)

var customProvider = regexp.MustCompile(`^REX_PROVIDER_([A-Z][A-Z0-9_]{0,31})_BASE_URL(_FILE)?$`)

// providerRows are the built-in providers and those that REX_PROVIDER_<NAME>_BASE_URL defines.
func (r *reader) providerRows() []api.Provider {
	rows := api.Providers()
	slices.Sort(r.all)
	for _, pair := range r.all {
		variable, value, _ := strings.Cut(pair, "=")
		if part := customPart.FindStringSubmatch(variable); part != nil && value != "" && r.text(part[1]+"BASE_URL", "") == "" {
			r.fail("%s: %sBASE_URL is missing, so there is no such provider", variable, part[1])
		}
		match := customProvider.FindStringSubmatch(variable)
		if match == nil || value == "" {
			continue
		}
		prefix, name := "REX_PROVIDER_"+match[1]+"_", strings.ToLower(match[1])
		if at := slices.IndexFunc(rows, func(row api.Provider) bool { return row.Name == name }); at >= 0 {
			if rows[at].BaseURLEnv == prefix+"BASE_URL" {
				r.fail("%sBASE_URL and %sBASE_URL_FILE are both set; keep one", prefix, prefix)
			}
			r.fail("%s: %q is a built-in provider", variable, name)
			continue
		}
		wire := r.text(prefix+"WIRE", provider.WireOpenAI)
		if wire != provider.WireOpenAI && wire != provider.WireAnthropic && wire != provider.WireGemini {
			r.fail("%sWIRE takes openai, anthropic or gemini", prefix)
		}
		rows = append(rows, api.Provider{
			Name: name, Title: name, BaseURLEnv: prefix + "BASE_URL", APIKeyEnv: prefix + "API_KEY", Wire: wire,
		})
	}
	return rows
}

// provider resolves one provider; its address is nil when it has none. It has at least one key.
func (r *reader) provider(row api.Provider) (provider.Config, *url.URL) {
	config := provider.Config{Name: row.Name, Wire: row.Wire, Quirks: row.Quirks}
	config.BaseURL = strings.TrimRight(r.text(row.BaseURLEnv, row.BaseURL), "/")
	config.Keys = r.keys(row.APIKeyEnv)
	if config.BaseURL == "" {
		return config, nil
	}
	address, err := url.Parse(config.BaseURL)
	if err != nil || address.Scheme != "http" && address.Scheme != "https" || address.Host == "" ||
		address.User != nil || address.RawQuery != "" || address.Fragment != "" {
		r.fail("%s: not an http(s) address without user, query and fragment", row.BaseURLEnv)
		return config, nil
	}
	return config, address
}

// keys reads a provider's keys, several separated by commas or line ends; one that is empty when
// there is none.
func (r *reader) keys(name string) []fanout.Key {
	if name == "" {
		return fanout.NewKeys()
	}
	secrets := r.list(name)
	for _, secret := range secrets {
		if strings.ContainsFunc(secret, func(c rune) bool { return c < 0x21 || c > 0x7e }) {
			r.fail("%s: a key is printable ASCII without spaces", name)
		}
	}
	return fanout.NewKeys(secrets...)
}

// proxies are the addresses that net/http takes from the environment for provider traffic.
func (r *reader) proxies() []*url.URL {
	var found []*url.URL
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		value := r.get(name)
		if value == "" {
			continue
		}
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
		if address, err := url.Parse(value); err == nil && address.Host != "" {
			found = append(found, address)
		}
	}
	return found
}
