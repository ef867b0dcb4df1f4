package loadtest

import (
	"net/http"
	"net/http/httputil"
	"net/url"
)

// Proxy is the least a process between can do: Go's own reverse proxy, which passes every piece on
// at once. What the service adds is measured against what this adds.
type Proxy struct {
	proxy     httputil.ReverseProxy
	transport http.Transport
}

// NewProxy returns a proxy in front of to.
func NewProxy(to *url.URL) *Proxy {
	p := &Proxy{transport: http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}}
	p.proxy = httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		FlushInterval: -1,
		Transport:     &p.transport,
	}
	return p
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Else the server closes the request's body when the answer begins, and a transport that has
	// not yet seen the body's end takes that for a failure and cuts the answer.
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 has it anyway
	p.proxy.ServeHTTP(w, r)
}

// Close gives back idle connections.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }
