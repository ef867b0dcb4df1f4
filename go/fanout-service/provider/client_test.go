package provider

import (
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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

// relay passes connections on to a server until it falls silent: then what it has passed on so far
// goes nowhere, in either direction, and nobody is told.
type relay struct {
	listener net.Listener
	to       string
	silent   chan struct{} // closed to silence the connections made so far
	count    atomic.Int32
	works    sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, to: to, silent: make(chan struct{})}
	r.works.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			silent := r.silent
			if r.count.Add(1) > 1 {
				silent = nil
			}
			r.works.Go(func() { r.pass(conn, silent) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		r.works.Wait()
	})
	return r
}

func (r *relay) pass(conn net.Conn, silent <-chan struct{}) {
	defer func() { _ = conn.Close() }()
	upstream, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer func() { _ = upstream.Close() }()
	both := make(chan struct{}, 2)
	for from, to := range map[net.Conn]net.Conn{conn: upstream, upstream: conn} {
		r.works.Go(func() {
			buf := make([]byte, 4<<10)
			for {
				n, err := from.Read(buf)
				if err != nil {
					break
				}
				select {
				case <-silent:
				default:
					_, _ = to.Write(buf[:n])
				}
			}
			both <- struct{}{}
		})
	}
	<-both // the client, or the server, has closed
}

func TestCallsDoNotGoOnJoiningAConnectionThatTheNetworkForgot(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	between := newRelay(t, server.Listener.Addr().String())
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())
	client := newClient(NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil), authorities)
	defer client.CloseIdleConnections()
	config := client.Transport.(*http.Transport).HTTP2
	if config.SendPingTimeout == 0 || config.PingTimeout == 0 {
		t.Fatal("no ping is sent")
	}
	config.SendPingTimeout, config.PingTimeout = 50*time.Millisecond, 50*time.Millisecond
	ask := func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+between.listener.Addr().String(), strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	close(between.silent)
	if err := ask(); err == nil {
		t.Error("there was an answer over a silent connection")
	}
	if err := ask(); err != nil || between.count.Load() != 2 {
		t.Errorf("%v, over the connection %d of two", err, between.count.Load())
	}
}
