package provider

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A listener that makes no TLS handshake keeps every dial under way for as long as its connection is
// open.
func TestDialsToOneAddressWaitForTheirTurn(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 2*dialsAtOnce)
	var works sync.WaitGroup
	works.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	})
	client := NewClient(NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil))
	ask := func() (over <-chan error, leave func()) {
		exchange, cancel := NewExchange(t.Context())
		ended := make(chan error, 1)
		works.Go(func() {
			request, err := http.NewRequestWithContext(exchange, http.MethodGet, "https://"+listener.Addr().String(), nil)
			if err == nil {
				_, err = client.Do(request)
			}
			ended <- err
		})
		return ended, cancel
	}
	const late = 6
	for range dialsAtOnce {
		_, cancel := ask()
		defer cancel()
	}
	under := make([]net.Conn, dialsAtOnce)
	for i := range under {
		under[i] = <-accepted
	}

	left, leave := ask()
	for range late {
		_, cancel := ask()
		defer cancel()
	}
	select {
	case <-accepted:
		t.Error("a dial beyond the bound is under way")
	case <-time.After(50 * time.Millisecond):
	}
	leave()
	if err := <-left; err == nil {
		t.Error("who left in the queue has an answer")
	}

	for i := range late {
		_ = under[i].Close()
		_ = (<-accepted).Close() // the next in turn
	}
	for _, conn := range under {
		_ = conn.Close()
	}
	_ = listener.Close()
	works.Wait()
}
