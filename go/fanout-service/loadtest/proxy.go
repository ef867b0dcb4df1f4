package loadtest

import (
	"net/http"
	"net/http/httputil"
	"net/url"
)

// NewProxy is the least a process between can do: Go's own reverse proxy, which passes every piece
// on at once. What the service adds is measured against what this adds.
func NewProxy(to *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		FlushInterval: -1,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true},
	}
}
