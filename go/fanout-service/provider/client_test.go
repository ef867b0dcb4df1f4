package provider

import (
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestOverTLSTheClientSpeaksHTTP2WhereItCan(t *testing.T) {
	for protocol, enabled := range map[string]bool{"HTTP/2.0": true, "HTTP/1.1": false} {
		seen := ""
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Proto }))
		server.EnableHTTP2 = enabled
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		authorities := x509.NewCertPool()
		authorities.AddCert(server.Certificate())
		client := newClient(NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil), authorities)
		for range 2 {
			exchange, cancel := NewExchange(t.Context())
			request, err := http.NewRequestWithContext(exchange, http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			cancel()
			if seen != protocol {
				t.Errorf("spoke %s, want %s", seen, protocol)
			}
		}
		client.CloseIdleConnections()
		server.Close()
	}
}
