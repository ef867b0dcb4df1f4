package provider_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
	"rex/fanout-service/provider/openai"
	"rex/fanout-service/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const answer = `data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"

func answering(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, answer)
}

func ask(t *testing.T, client *http.Client, config provider.Config) error {
	t.Helper()
	_, err := openai.New(config, client).Stream(t.Context(), providertest.Call(), fanout.NewKey(providertest.Key), &providertest.Sink{T: t})
	return err
}

func wantConnectionFailure(t *testing.T, err error, fact string) {
	t.Helper()
	var failure *fanout.Failure
	if !errors.As(err, &failure) || failure.Kind != fanout.Connection || failure.Fact != fact {
		t.Errorf("%v, want connection (%s)", err, fact)
	}
}

func TestAnAddressOfOurOwnNetworkIsNotDialled(t *testing.T) {
	var asked atomic.Int32
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answering(w, r)
	}))
	defer upstream.Close()
	at, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	local := *at
	local.Host = "localhost:" + at.Port()
	elsewhere := *at
	elsewhere.Host = "127.0.0.1:1"
	for _, row := range []struct {
		name  string
		guard *provider.Guard
		url   *url.URL
		ok    bool
	}{
		{"no guard's leave", nil, at, false},
		{"a name without leave", nil, &local, false},
		{"another network's leave", provider.NewGuard([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, nil), at, false},
		{"leave for another port", provider.NewGuard(nil, []*url.URL{&elsewhere}), at, false},
		{"leave for the address, asked by name", provider.NewGuard(nil, []*url.URL{at}), &local, false},
		{"the network's leave", providertest.Loopback(), at, true},
		{"the address is configured", provider.NewGuard(nil, []*url.URL{at}), at, true},
		{"localhost is configured", provider.NewGuard(nil, []*url.URL{&local}), &local, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked.Store(0)
			client := provider.NewClient(row.guard)
			defer client.CloseIdleConnections()
			err := ask(t, client, provider.Config{BaseURL: row.url.String()})
			if row.ok && err != nil || row.ok != (asked.Load() == 1) {
				t.Errorf("%v, asked %d times", err, asked.Load())
			}
			if !row.ok {
				wantConnectionFailure(t, err, "the address is not allowed")
			}
		})
	}
}

func TestTheGuardHoldsForAProxyToo(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(answering))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, configured := range [][]*url.URL{nil, {at}} {
		client := provider.NewClient(provider.NewGuard(nil, configured))
		client.Transport.(*http.Transport).Proxy = http.ProxyURL(at)
		err := ask(t, client, provider.Config{BaseURL: "http://provider.example/v1"})
		if configured == nil {
			wantConnectionFailure(t, err, "the address is not allowed")
		} else if err != nil {
			t.Error(err)
		}
		client.CloseIdleConnections()
	}
}

// certify makes an authority and a server certificate it signed.
func certify(t *testing.T, leaf x509.Certificate) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf.SerialNumber = big.NewInt(2)
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	root, err := x509.CreateCertificate(rand.Reader, &authority, &authority, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.CreateCertificate(rand.Reader, &leaf, &authority, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(root)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}
}

func TestACertificateThatIsNotValidIsAConnectionFailureAndNothingIsSent(t *testing.T) {
	here := []net.IP{net.IPv4(127, 0, 0, 1)}
	later, earlier := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for _, row := range []struct {
		name    string
		leaf    x509.Certificate
		trusted bool
		ok      bool
	}{
		{"valid", x509.Certificate{IPAddresses: here, NotAfter: later}, true, true},
		{"expired", x509.Certificate{IPAddresses: here, NotAfter: earlier}, true, false},
		{"not yet valid", x509.Certificate{IPAddresses: here, NotBefore: later, NotAfter: later.Add(time.Hour)}, true, false},
		{"of another host", x509.Certificate{DNSNames: []string{"other.example"}, NotAfter: later}, true, false},
		{"of an authority nobody knows", x509.Certificate{IPAddresses: here, NotAfter: later}, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := false
			upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = true
				answering(w, r)
			}))
			upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
			pool, certificate := certify(t, row.leaf)
			upstream.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
			upstream.StartTLS()
			defer upstream.Close()
			client := providertest.Client(t)
			if row.trusted {
				client.Transport.(*http.Transport).TLSClientConfig.RootCAs = pool
			}
			err := ask(t, client, provider.Config{BaseURL: upstream.URL})
			if row.ok && err != nil || asked != row.ok {
				t.Errorf("%v, asked %v", err, asked)
			}
			if !row.ok {
				wantConnectionFailure(t, err, "its certificate is not valid")
			}
		})
	}
}

func TestAServerWithoutTLSIsNotSpokenToInPlainText(t *testing.T) {
	asked := false
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer upstream.Close()
	err := ask(t, providertest.Client(t), provider.Config{BaseURL: strings.Replace(upstream.URL, "http:", "https:", 1)})
	wantConnectionFailure(t, err, "")
	if asked {
		t.Error("the request was sent")
	}
}

func TestAStopClosesAConnectionThatIsStillBeingMade(t *testing.T) {
	// A server that accepts and never answers the handshake.
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	ctx, stop := context.WithCancelCause(t.Context())
	cause := fanout.Fail(fanout.TimeoutConnect, "")
	closed := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			stop(cause)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = io.Copy(io.Discard, conn) // ends without error when the client has closed
			_ = conn.Close()
		}
		closed <- err
	}()
	sink := &providertest.Sink{T: t}
	subject := openai.New(provider.Config{BaseURL: "https://" + listener.Addr().String()}, providertest.Client(t))
	if _, err := subject.Stream(ctx, providertest.Call(), fanout.NewKey(providertest.Key), sink); !errors.Is(err, cause) {
		t.Errorf("%v, want the cause of the stop", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("the connection was left open: %v", err)
	}
	if len(sink.Moments) != 0 {
		t.Errorf("reported %v", sink.Moments)
	}
}

func TestAnHTTP2ServerThatGoesAwayFinishesWhatItBegan(t *testing.T) {
	connections := map[string]bool{}
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true
		w.Header().Set("Connection", "close") // over HTTP/2 this sends GOAWAY
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, `data: {"choices":[{"delta":{"content":"Well"}}]}`+"\n\n")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(20 * time.Millisecond) // the client reads GOAWAY in the middle of the answer
		answering(w, r)
	}))
	upstream.EnableHTTP2 = true
	upstream.StartTLS()
	defer upstream.Close()
	client := providertest.Client(t, upstream)
	for range 3 {
		if err := ask(t, client, provider.Config{BaseURL: upstream.URL}); err != nil {
			t.Error(err)
		}
	}
	if len(connections) != 3 {
		t.Errorf("%d connections for 3 calls", len(connections))
	}
}

func TestARequestThatWasWrittenIsNotSentAgain(t *testing.T) {
	// A server that keeps its connection after the first answer, and closes it when the second
	// request has come.
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reader := bufio.NewReader(conn)
			for n := 0; ; n++ {
				request, err := http.ReadRequest(reader)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, request.Body)
				if requests.Add(1) == 2 {
					break
				}
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: "+
					big.NewInt(int64(len(answer))).String()+"\r\n\r\n"+answer)
			}
			_ = conn.Close()
		}
	}()
	client := providertest.Client(t)
	config := provider.Config{BaseURL: "http://" + listener.Addr().String()}
	if err := ask(t, client, config); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // the connection is given back behind the answer
	wantConnectionFailure(t, ask(t, client, config), "the connection broke before an answer")
	if requests.Load() != 2 {
		t.Errorf("the upstream saw %d requests for 2 calls", requests.Load())
	}
	_ = listener.Close()
	<-served
}

func TestAConnectionIsKeptUnlessTheEndpointClosesThemItself(t *testing.T) {
	for _, closes := range []bool{false, true} {
		addresses := map[string]bool{}
		upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			addresses[r.RemoteAddr] = true
			answering(w, r)
		}))
		client := providertest.Client(t)
		for range 3 {
			if err := ask(t, client, provider.Config{BaseURL: upstream.URL, Quirks: provider.Quirks{CloseConnections: closes}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // a connection is given back behind the answer
		}
		upstream.Close()
		if closes != (len(addresses) == 3) {
			t.Errorf("closes %v: %d connections for 3 calls", closes, len(addresses))
		}
	}
}

func TestConnectionsServeAgain(t *testing.T) {
	connections := map[string]bool{}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connections[r.RemoteAddr] = true
		answering(w, r)
	}))
	defer upstream.Close()
	client := providertest.Client(t)
	for range 20 {
		if err := ask(t, client, provider.Config{BaseURL: upstream.URL}); err != nil {
			t.Fatal(err)
		}
	}
	// Mostly one; a call may come before the last body has been read to its end.
	if len(connections) > 10 {
		t.Errorf("%d connections for 20 calls", len(connections))
	}
}
