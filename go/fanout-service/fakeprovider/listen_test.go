package fakeprovider_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"rex/fanout-service/fakeprovider"
)

// trust makes the client believe the listener's authority.
func (u *upstream) trust() {
	u.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(u.at.CA) {
		u.t.Fatal("no certificate")
	}
	transport, ok := u.client.Transport.(*http.Transport)
	if !ok {
		u.t.Fatal("no transport")
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func TestCertificatesAreWhatTheySay(t *testing.T) {
	for kind, want := range map[string]string{
		fakeprovider.TLSValid:     "",
		fakeprovider.TLSExpired:   "expired",
		fakeprovider.TLSWrongHost: "doesn't contain any IP SANs",
	} {
		for _, http2 := range []bool{false, true} {
			u := start(t, fakeprovider.Options{TLS: kind, HTTP2: http2})
			if got := u.ask("openai", "ok", true); got.err == nil || !strings.Contains(got.err.Error(), "unknown authority") && !strings.Contains(got.err.Error(), want) {
				t.Errorf("%s without its authority: %v", kind, got.err)
			}
			u.trust()
			got := u.ask("openai", "ok?delay_ms=0", true)
			if want == "" && (got.err != nil || got.status != 200) || want != "" && (got.err == nil || !strings.Contains(got.err.Error(), want)) {
				t.Errorf("%s: %+v", kind, got)
			}
			if n := u.fake.Stats().Requests; (n == 1) != (want == "") {
				t.Errorf("%s: %d requests came through", kind, n)
			}
		}
	}
	u := start(t, fakeprovider.Options{TLS: fakeprovider.TLSValid})
	u.trust()
	for _, model := range []string{"reset", "cut-abrupt", "reset-before", "cut-at?bytes=100&how=rst", "short-body"} {
		if got := u.ask("openai", model, true); got.err == nil {
			t.Errorf("%s with TLS: %+v", model, got)
		}
	}
}

func TestAHandshakeThatNeverComesEnds(t *testing.T) {
	u := start(t, fakeprovider.Options{TLS: fakeprovider.TLSStall})
	ctx, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	if got := u.send(u.request(ctx, "openai", "ok", true)); got.err == nil || cameInTime(got.err) {
		t.Errorf("%+v", got)
	}
	if u.fake.Stats().ConnectionsOpened != 1 {
		t.Errorf("%+v", u.fake.Stats())
	}
	held, err := net.Dial("tcp", u.at.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	if err := u.at.Close(); err != nil { // with a connection still open
		t.Error(err)
	}
}

func TestNoSuchTLSIsAnError(t *testing.T) {
	for _, options := range []fakeprovider.Options{{TLS: "rot13"}, {TLS: fakeprovider.TLSValid, GoawayAfter: 1}} {
		if l, err := fakeprovider.New().Listen(t.Context(), options); err == nil {
			t.Error("listens at", l.URL)
		}
	}
}

// connections counts the connections that requests of one client use.
func connections(u *upstream, models ...string) int {
	u.t.Helper()
	seen := map[string]bool{}
	for _, model := range models {
		ctx := httptrace.WithClientTrace(u.t.Context(), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { seen[info.Conn.LocalAddr().String()] = true },
		})
		if got := u.send(u.request(ctx, "openai", model, true)); got.err != nil || got.status != 200 {
			u.t.Errorf("%s: %+v", model, got)
		}
		time.Sleep(20 * time.Millisecond) // the client learns of a closed connection by reading from it
	}
	return len(seen)
}

func TestHTTP2SaysGoawayAfterSoManyStreams(t *testing.T) {
	for _, kind := range []string{"", fakeprovider.TLSValid} {
		u := start(t, fakeprovider.Options{HTTP2: true, TLS: kind})
		if kind != "" {
			u.trust()
		}
		const away = "goaway?every=3&delay_ms=0"
		if n := connections(u, away, away, away, away); n != 2 {
			t.Errorf("TLS %q: %d connections", kind, n)
		}
		if n := connections(u, "ok?delay_ms=0", "ok?delay_ms=0"); n != 1 {
			t.Errorf("TLS %q: %d connections", kind, n)
		}
	}
}

func TestAStreamRefusedByGoawayIsSeenByNobody(t *testing.T) {
	u := start(t, fakeprovider.Options{HTTP2: true, GoawayAfter: 2})
	if n := connections(u, "ok?delay_ms=0", "ok?delay_ms=0", "ok?delay_ms=1", "reasoning?delay_ms=0", "ok?delay_ms=0"); n != 3 {
		t.Errorf("%d connections for five streams", n)
	}
	if n := len(u.settled()); n != 5 { // the client sends what was refused again, and only that
		t.Errorf("%d requests", n)
	}
	once := u.request(t.Context(), "openai", "ok?delay_ms=0", true)
	u.ask("openai", "ok?delay_ms=0", true)
	once.GetBody = nil // it cannot be sent again
	if got := u.send(once); got.err == nil {
		t.Errorf("%+v", got)
	}
	if n := len(u.settled()); n != 6 {
		t.Errorf("%d requests", n)
	}
}

func TestAStreamInFlightOutlivesAGoaway(t *testing.T) {
	u := start(t, fakeprovider.Options{HTTP2: true, GoawayAfter: 1})
	running := make(chan reply)
	go func() { running <- u.ask("anthropic", "bulk?bytes=1000000&first_ms=30", true) }()
	for len(u.fake.Log()) == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 3 {
		if got := u.ask("openai", "ok?delay_ms=0", true); got.err != nil || got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	if got := <-running; got.err != nil || !strings.Contains(got.body, "message_stop") {
		t.Errorf("%d %v", got.status, got.err)
	}
	if stats := u.fake.Stats(); stats.Requests != 4 || stats.ConnectionsOpened != 4 {
		t.Errorf("%+v", stats)
	}
}

func TestIdleConnectionsCloseUnannounced(t *testing.T) {
	const plain = "ok?delay_ms=0"
	if n := connections(start(t, fakeprovider.Options{}), plain, plain); n != 1 {
		t.Errorf("%d connections where nothing closes", n)
	}
	if n := connections(start(t, fakeprovider.Options{CloseIdle: true}), plain, plain); n != 2 {
		t.Errorf("%d connections where all close", n)
	}
	if n := connections(start(t, fakeprovider.Options{}), "idle-close?delay_ms=0", plain, plain); n != 2 {
		t.Errorf("%d connections where one closes", n)
	}
	if n := connections(start(t, fakeprovider.Options{}), "idle-close?delay_ms=0&idle_ms=5", plain, plain); n != 2 {
		t.Errorf("%d connections where one closes later", n)
	}
}

func TestAServerOfSomebodyElsesCanBeConfigured(t *testing.T) {
	fake := fakeprovider.New()
	server := httptest.NewUnstartedServer(fake)
	fake.Configure(server.Config)
	server.Start()
	defer server.Close()
	if status, _, err := post(t, server.URL+"/chat/completions", `{"model":"idle-close?delay_ms=0","messages":[]}`); err != nil || status != 200 {
		t.Errorf("%d %v", status, err)
	}
	if stats := fake.Stats(); stats.ConnectionsOpened != 1 {
		t.Errorf("%+v", stats)
	}
}
