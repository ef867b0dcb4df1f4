package fakeprovider

import (
	"net"
	"net/http"
	"time"
)

// breaks are stalls and broken connections.
var breaks = []script{
	{name: "no-headers", does: "Accepts the request and never answers.", streams: open, run: func(s *session) { s.hang() }},
	{name: "stall-first", does: "The header, then nothing but pings every `ping_ms` (50; 0: none).", streams: open, run: func(s *session) {
		s.beginStream()
		s.stall()
	}},
	{name: "stall-opened", does: "The header and what opens the stream, then nothing but pings.", options: "`ping_ms`", streams: open, run: func(s *session) {
		s.open()
		s.stall()
	}},
	{name: "stall", does: "Three words, then nothing but pings.", options: "`ping_ms`", streams: open, run: func(s *session) {
		s.some(3)
		s.stall()
	}},
	{name: "cut", does: "Three words, then a clean end of the body.", streams: short, whole: broken, run: func(s *session) { s.some(3) }},
	{name: "cut-abrupt", does: "Three words, then the connection closes inside the body.", streams: broken, run: func(s *session) { s.some(3); s.breakOff() }},
	{name: "reset", does: "Three words, then a TCP RST.", streams: broken, run: func(s *session) { s.some(3); s.reset() }},
	{name: "reset-before", does: "A TCP RST before any answer.", streams: broken, run: func(s *session) { s.reset() }},
	{name: "close-before", does: "The connection closes before any answer.", streams: broken, run: func(s *session) { s.breakOff() }},
	{name: "cut-at", does: "Another script, cut behind `bytes` (0) bytes of its body.",
		options: "`as` (`ok`), `how`: `fin`, `rst` or `end`, a clean end of the body (`fin`)", streams: broken, plays: true, run: func(s *session) {
			s.cutAt, s.cutHow = s.number("bytes", 0), s.text("how", "fin")
			s.play(s.text("as", "ok"))
		}},
	{name: "short-body", does: "A body shorter than its `Content-Length`.", streams: broken, run: func(s *session) {
		s.unframed("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\n", 0)
	}},
	{name: "bad-chunk", does: "A chunk whose length is no number.", streams: broken, run: func(s *session) {
		s.unframed("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 0)
	}},
	{name: "not-http", does: "Bytes of another protocol.", streams: broken, run: func(s *session) { s.unframed("220 mail.example ESMTP\r\n", 0) }},
	{name: "huge-header", does: "A header of `bytes` (32 MiB).", streams: broken, run: func(s *session) {
		s.unframed("HTTP/1.1 200 OK\r\nX-Filler: "+string(fill(s.number("bytes", 32<<20))), 0)
	}},
	{name: "header-drip", does: "A header, a byte every `delay_ms` (50).", streams: broken, run: func(s *session) {
		s.unframed("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Filler: and so on and so on\r\nContent-Length: 9\r\n\r\n", s.ms("delay_ms", 50))
	}},
	{name: "goaway", does: "A whole answer; every `every`-th (1) says that the connection closes behind it, in HTTP/2 with GOAWAY.", streams: completely, run: func(s *session) {
		if s.nth%max(1, s.number("every", 1)) == 0 {
			s.w.Header().Set("Connection", "close")
		}
		ok(s)
	}},
	{name: "idle-close", does: "A whole answer; the connection, said to stay, closes once it has been idle for `idle_ms` (0). HTTP/1 and a Configured server only.", streams: completely, run: func(s *session) {
		closeWhenIdle(s.r, s.ms("idle_ms", 0))
		ok(s)
	}},
}

// stall writes pings alone, as some proxies do to keep a line open.
func (s *session) stall() {
	every := s.ms("ping_ms", 50)
	if every == 0 || !s.asked.stream {
		s.hang()
	}
	for s.sleep(every) {
		s.wire.ping(s)
	}
}

// breakOff closes the connection with a FIN.
func (s *session) breakOff() {
	if conn := s.hijack(); conn != nil {
		_ = conn.Close()
	}
}

// reset closes the connection with a TCP RST.
func (s *session) reset() {
	conn := s.hijack()
	if conn == nil {
		return
	}
	if inner, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS: no close_notify either
		conn = inner.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// cut ends the answer where cut-at wants it.
func (s *session) cut() {
	switch s.cutHow {
	case "end":
		s.gone = true
	case "rst":
		s.reset()
	default:
		s.breakOff()
	}
}

// hijack takes the connection from the server, unless the client has left. Of HTTP/2 only a
// stream can be broken off, by a panic the server knows.
func (s *session) hijack() net.Conn {
	if !s.proceed() {
		return nil
	}
	s.leaving.over.Store(true) // what the client does from here on, it does because of us
	s.gone = true
	conn, _, err := s.control.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

// unframed answers with bytes that net/http would not write, one every pace if there is one. The
// server no longer watches the connection, so that we must.
func (s *session) unframed(text string, pace time.Duration) {
	conn := s.hijack()
	if conn == nil {
		return
	}
	s.leaving.over.Store(false)
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = conn.Read(make([]byte, 1))
		if !s.leaving.over.Load() {
			s.server.aborted(s.entry)
		}
	}()
	s.server.firstByte(s.entry)
	step := len(text)
	if pace > 0 {
		step = 1
	}
	for rest := text; rest != ""; rest = rest[step:] {
		s.leaving.over.Store(len(rest) == step)
		if _, err := conn.Write([]byte(rest[:step])); err != nil {
			s.server.aborted(s.entry)
			break
		}
		if len(rest) > step && wait(left, pace) {
			break
		}
	}
	s.leaving.over.Store(true)
	_ = conn.Close()
	<-left
}

// wait says whether the client left within d.
func wait(left <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-left:
		return true
	case <-timer.C:
		return false
	}
}

func fill(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = 'x'
	}
	return out
}
