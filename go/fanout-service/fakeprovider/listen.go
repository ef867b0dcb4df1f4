package fakeprovider

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options say how a Server listens. The zero value is plain HTTP/1 on a free port of loopback.
type Options struct {
	Address   string // host:port; "" is 127.0.0.1:0
	HTTP2     bool   // by ALPN with TLS, else in clear text with prior knowledge
	TLS       string // "", or one of TLSKinds
	CloseIdle bool   // close a keep-alive connection as soon as it is idle, unannounced
	// GoawayAfter refuses every stream of an HTTP/2 connection behind the n-th with GOAWAY, unseen
	// by scripts and log; 0 refuses none. In clear text only.
	GoawayAfter int
}

// Listener is a Server on a socket.
type Listener struct {
	Address string // host:port
	URL     string // http://… or https://…, without a path
	CA      []byte // PEM of the authority that signed the certificate, with TLS

	close func() error
	done  chan struct{}
}

// Listen serves until Close. Several listeners may share a server: one log, one set of counts.
func (s *Server) Listen(ctx context.Context, options Options) (*Listener, error) {
	address := options.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	if options.GoawayAfter > 0 && options.TLS != "" {
		return nil, errors.New("GOAWAY is written in clear text only")
	}
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l := &Listener{Address: socket.Addr().String(), URL: "http://" + socket.Addr().String(), done: make(chan struct{})}
	if options.GoawayAfter > 0 {
		socket = &goawayListener{socket, options.GoawayAfter}
	}
	if options.TLS == TLSStall {
		l.URL, l.close = "https://"+l.Address, socket.Close
		go s.neverShakeHands(context.WithoutCancel(ctx), socket, l.done)
		return l, nil
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	s.Configure(server)
	if options.CloseIdle {
		closeEveryIdle(server)
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(options.HTTP2)
	server.Protocols.SetHTTP2(options.HTTP2)
	serve := server.Serve
	if options.TLS != "" {
		certificate, ca, err := certify(options.TLS, time.Now())
		if err != nil {
			_ = socket.Close()
			return nil, err
		}
		l.URL, l.CA = "https://"+l.Address, ca
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
		serve = func(socket net.Listener) error { return server.ServeTLS(socket, "", "") }
	}
	l.close = server.Close
	go func() {
		defer close(l.done)
		if err := serve(socket); !errors.Is(err, http.ErrServerClosed) {
			_ = server.Close()
		}
	}()
	return l, nil
}

// Close ends every connection. It may be called more than once.
func (l *Listener) Close() error {
	err := l.close()
	<-l.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// neverShakeHands accepts connections and says nothing on them.
func (s *Server) neverShakeHands(ctx context.Context, socket net.Listener, done chan<- struct{}) {
	defer close(done)
	var held sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	for {
		conn, err := socket.Accept()
		if err != nil {
			break
		}
		s.connections(1)
		held.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			_, _ = io.Copy(io.Discard, conn)
			stop()
			_ = conn.Close()
			s.connections(-1)
		})
	}
	cancel()
	held.Wait()
}

func (s *Server) connections(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += change
	s.opened += max(0, change)
}

type connKey struct{}

// idling is what a script wants of its connection once that is idle.
type idling struct {
	mu    sync.Mutex
	close bool
	after time.Duration
	conn  net.Conn
}

// Configure makes an http.Server count its connections and able to close idle ones, which some
// scripts want. Listen does it for its own.
func (s *Server) Configure(server *http.Server) {
	kept := sync.Map{} // net.Conn → *idling
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		state := &idling{conn: conn}
		kept.Store(conn, state)
		return context.WithValue(ctx, connKey{}, state)
	}
	server.ConnState = func(conn net.Conn, now http.ConnState) {
		switch now {
		case http.StateNew:
			s.connections(1)
		case http.StateClosed, http.StateHijacked:
			s.connections(-1)
			kept.Delete(conn)
		case http.StateIdle:
			if found, ok := kept.Load(conn); ok {
				if state, ok := found.(*idling); ok {
					state.idle()
				}
			}
		case http.StateActive:
		}
	}
}

func (i *idling) idle() {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case !i.close:
	case i.after == 0:
		_ = i.conn.Close()
	default:
		time.AfterFunc(i.after, func() { _ = i.conn.Close() })
	}
}

// closeWhenIdle has the request's connection closed once it has been idle for a while.
func closeWhenIdle(r *http.Request, after time.Duration) {
	if state, ok := r.Context().Value(connKey{}).(*idling); ok {
		state.mu.Lock()
		defer state.mu.Unlock()
		state.close, state.after = true, after
	}
}

func closeEveryIdle(server *http.Server) {
	inner := server.ConnState
	server.ConnState = func(conn net.Conn, now http.ConnState) {
		inner(conn, now)
		if now == http.StateIdle {
			_ = conn.Close()
		}
	}
}
