package fakeprovider

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// goawayListener refuses streams the way a provider's front end does when it is replaced: behind
// the n-th stream of a connection every other is answered with a GOAWAY that names the n-th as the
// last, and never reaches the server. What was refused so may be sent again elsewhere, since
// nobody has seen it.
type goawayListener struct {
	net.Listener
	after int // streams a connection serves
}

func (l *goawayListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &goawayConn{Conn: conn, incoming: bufio.NewReader(conn), after: l.after}, nil
}

// goawayConn follows the frames in both directions (RFC 9113, section 4.1). A client that does not
// open with HTTP/2's preface is let through as it is.
type goawayConn struct {
	net.Conn
	incoming *bufio.Reader
	after    int

	// Of what the client sends; used by Read alone.
	begun, plain bool
	header       []byte // of a frame, not yet handed on
	pass         int    // bytes of the frame still to hand on
	streams      int
	newest, last uint32 // the newest stream, and the last one that is served

	// Of what the server sends.
	mu      sync.Mutex
	head    [frameHeader]byte
	filled  int // bytes of head
	left    int // bytes of the frame behind its header
	goaway  bool
	refused bool
}

const (
	clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeader   = 9
	typeHeaders   = 1
	typeGoaway    = 7
)

func (c *goawayConn) Read(p []byte) (int, error) {
	if !c.begun {
		opening, err := c.incoming.Peek(3)
		if err != nil {
			return 0, err
		}
		c.begun, c.plain, c.pass = true, string(opening) != clientPreface[:3], len(clientPreface)
	}
	if c.plain {
		return c.incoming.Read(p)
	}
	for len(c.header) == 0 && c.pass == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	if len(c.header) > 0 {
		n := copy(p, c.header)
		c.header = c.header[n:]
		return n, nil
	}
	n, err := c.incoming.Read(p[:min(len(p), c.pass)])
	c.pass -= n
	return n, err
}

// nextFrame reads a frame's header and hands it on, or swallows the frame of a refused stream.
func (c *goawayConn) nextFrame() error {
	header := make([]byte, frameHeader)
	if _, err := io.ReadFull(c.incoming, header); err != nil {
		return err
	}
	length := frameLength(header)
	stream := binary.BigEndian.Uint32(header[5:]) &^ (1 << 31)
	if header[3] == typeHeaders && stream > c.newest {
		c.newest = stream
		c.streams++
		if c.streams <= c.after {
			c.last = stream
		}
	}
	if c.streams > c.after && stream > c.last {
		if _, err := c.incoming.Discard(length); err != nil {
			return err
		}
		return c.refuse()
	}
	c.header, c.pass = header, length
	return nil
}

func frameLength(header []byte) int {
	return int(header[0])<<16 | int(header[1])<<8 | int(header[2])
}

// refuse sends the GOAWAY, once, between two frames of the server.
func (c *goawayConn) refuse() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused {
		return nil
	}
	c.refused, c.goaway = true, true
	return c.between()
}

// between sends what waits for the end of a frame. The caller holds mu.
func (c *goawayConn) between() error {
	if !c.goaway || c.filled > 0 || c.left > 0 {
		return nil
	}
	c.goaway = false
	frame := append([]byte{0, 0, 8, typeGoaway, 0, 0, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, c.last)...)
	_, err := c.Conn.Write(append(frame, 0, 0, 0, 0)) // NO_ERROR
	return err
}

func (c *goawayConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	written := 0
	for written < len(p) {
		if err := c.between(); err != nil {
			return written, err
		}
		rest := p[written:]
		size := min(len(rest), c.left)
		if c.left == 0 { // within a header
			size = copy(c.head[c.filled:], rest)
		}
		n, err := c.Conn.Write(rest[:size])
		written += n
		if err != nil {
			return written, err
		}
		if c.left > 0 {
			c.left -= n
		} else if c.filled += n; c.filled == frameHeader {
			c.filled, c.left = 0, frameLength(c.head[:])
		}
	}
	return written, c.between()
}
