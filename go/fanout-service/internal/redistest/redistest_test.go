package redistest

import (
	"net"
	"testing"
	"time"
)

func TestARealServerAnswersAndAPausedOneDoesNot(t *testing.T) {
	s := New(t)
	if !s.answers() {
		t.Fatal("no answer")
	}
	s.Pause()
	if s.answers() {
		t.Error("a paused server answered")
	}
	connection, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		t.Errorf("a paused server refused a connection, as only a dead one may: %v", err)
	} else {
		connection.Close()
	}
	s.Resume()
	if !s.answers() {
		t.Error("no answer after the pause")
	}
	s.Kill()
	if s.answers() {
		t.Error("a killed server answered")
	}
	s.Restart()
	if !s.answers() {
		t.Error("no answer after a restart")
	}
}
