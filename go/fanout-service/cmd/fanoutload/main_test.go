package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serving is a server of this program in its own goroutine, and what ends it.
type serving struct {
	url   string
	stdin *io.PipeWriter
	stop  context.CancelFunc
	ended chan error
}

func serveArgs(t *testing.T, args ...string) *serving {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stdin, parent := io.Pipe()
	said, stdout := io.Pipe()
	s := &serving{stdin: parent, stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- run(ctx, append(args, "--exit-on-stdin-eof"), stdin, stdout) }()
	var address struct {
		Listening string `json:"listening"`
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || json.Unmarshal([]byte(line), &address) != nil {
		t.Fatalf("%q %v", line, err)
	}
	s.url = "http://" + address.Listening
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s
}

func TestTheServersAnswerUntilTheirParentIsGone(t *testing.T) {
	upstream := serveArgs(t, "upstream")
	defer upstream.stop()
	proxy := serveArgs(t, "proxy", "--to", upstream.url)
	defer proxy.stop()
	response, err := http.Get(proxy.url + "/_/counts")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || !strings.Contains(string(raw), `"begun":0`) {
		t.Errorf("%s %v", raw, err)
	}
	for _, server := range []*serving{proxy, upstream} {
		_ = server.stdin.Close()
		if err := <-server.ended; err != nil {
			t.Error(err)
		}
	}
}

func TestAServerEndsWithItsSignal(t *testing.T) {
	upstream := serveArgs(t, "upstream")
	upstream.stop()
	if err := <-upstream.ended; err != nil {
		t.Error(err)
	}
	_ = upstream.stdin.Close()
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	for _, c := range []struct{ args, stdin, says string }{
		{"", "", "upstream, proxy or measure"},
		{"race", "", "race"},
		{"proxy", "", "--to"},
		{"measure", `{"what":"race"}`, "race"},
		{"measure", `{"what":"rate","spec":{"target":{},"per_minute":1}}`, "per_minute"},
	} {
		err := run(t.Context(), strings.Fields(c.args), strings.NewReader(c.stdin), io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}
