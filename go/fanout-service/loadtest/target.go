// Package loadtest loads the fan-out service, and what it is compared with, and measures: added
// latency in an open loop, cost per call and per chunk, memory of open streams, how fast upstreams
// close. scripts/fanout_load_test.py drives it through cmd/fanoutload and writes the report.
package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"rex/fanout-service/fakeprovider"
)

// Target is what a measurement loads.
type Target struct {
	// Kind is "chat" (an OpenAI chat completions endpoint: the upstream itself, a proxy or a
	// gateway) or "fanout" (the fan-out service).
	Kind     string            `json:"kind"`
	URL      string            `json:"url"` // chat: of the completions; fanout: of the service
	Headers  map[string]string `json:"headers"`
	Provider string            `json:"provider"` // fanout: the configured name of the upstream
	Version  int               `json:"version"`  // fanout: the contract's version
	Model    string            `json:"model"`
	// PIDs are the target's processes: their CPU and memory are its cost. Beside are the other
	// processes of the measurement; what else is busy on the machine counts as others' load.
	PIDs   []int `json:"pids"`
	Beside []int `json:"beside"`
}

// Answer is what one call got. The moments are zero when they never came.
type Answer struct {
	First, End time.Time // first text, and the end of the answer
	Chunks     int       // pieces of text of a Paced upstream, however they were put together
	Failure    string    // "" when the answer is complete
}

// question is one exchange with a target: a single call, or a fan-out of several.
type question struct {
	id       string
	model    string
	width    int
	stream   bool
	deadline time.Duration
	attempts int // at each target of a call; 0: one
}

// client asks one target. It keeps connections, as any client of a gateway does.
type client struct {
	target Target
	http   *http.Client
}

func newClient(target Target) *client {
	transport := &http.Transport{
		MaxIdleConns: 0, MaxIdleConnsPerHost: 1 << 14, DisableCompression: true, ReadBufferSize: 16 << 10,
	}
	return &client{target, &http.Client{Transport: transport}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// ask sends one question and reads its answers to the end. The error is that of the exchange as a
// whole; a call that failed says so in its answer.
func (c *client) ask(ctx context.Context, q question) ([]Answer, error) {
	url, body := c.target.URL, c.chatBody(q)
	if c.target.Kind == "fanout" {
		url, body = c.target.URL+"/fanout", c.fanoutBody(q)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	for name, value := range c.target.Headers {
		request.Header.Set(name, value)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, cause(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
		return nil, fmt.Errorf("http %d", response.StatusCode)
	}
	answers := make([]Answer, q.width)
	switch {
	case c.target.Kind == "fanout" && q.stream:
		err = readLines(response.Body, answers)
	case c.target.Kind == "fanout":
		err = readCalls(response.Body, answers)
	default:
		err = readChat(response.Body, &answers[0], q.stream)
	}
	return answers, cause(ctx, err)
}

// cause hides addresses: a failure is a word in a report.
func cause(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("cut")
	default:
		return errors.New("connection")
	}
}

func (c *client) chatBody(q question) string {
	return `{"model":"` + q.model + `","stream":` + fmt.Sprint(q.stream) +
		`,"messages":[{"role":"user","content":"Why is the sky blue?"}]}`
}

func (c *client) fanoutBody(q question) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"v":%d,"id":"%s","deadline_ms":%d`, c.target.Version, q.id, q.deadline.Milliseconds())
	whole := ""
	if !q.stream {
		b.WriteString(`,"stream":false`)
		whole = `,"whole":true`
	}
	retry := ""
	if q.attempts > 1 && c.target.Version > 1 {
		retry = fmt.Sprintf(`,"retry":{"attempts":%d}`, q.attempts)
	}
	b.WriteString(`,"calls":[`)
	for i := range q.width {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"%d","provider":"%s","model":"%s"%s%s,"messages":[{"role":"user","content":"Why is the sky blue?"}]}`,
			i, c.target.Provider, q.model, whole, retry)
	}
	b.WriteString(`]}`)
	return b.String()
}

var mark = []byte{fakeprovider.Mark}

// readChat takes an answer of the OpenAI format: events, or one body.
func readChat(body io.Reader, answer *Answer, stream bool) error {
	answer.Failure = "incomplete"
	err := eachLine(body, func(line []byte, at time.Time) {
		if n := bytes.Count(line, mark); n > 0 {
			if answer.First.IsZero() {
				answer.First = at
			}
			answer.Chunks += n
			answer.End = at
		}
		if bytes.Contains(line, []byte(`"finish_reason":"stop"`)) || bytes.Contains(line, []byte(`"finish_reason": "stop"`)) {
			answer.Failure = ""
		}
		if stream && bytes.Contains(line, []byte(`"error":`)) {
			answer.Failure = "error event"
		}
	})
	if !stream {
		answer.First = answer.End
	}
	return err
}

// eachLine calls visit with every line and the moment it was read; the last needs no end of line.
// A line is valid until visit returns.
func eachLine(body io.Reader, visit func(line []byte, at time.Time)) error {
	reader := bufio.NewReaderSize(body, 16<<10)
	var long []byte
	for {
		line, err := reader.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, line...)
			continue
		}
		if len(long) > 0 {
			long = append(long, line...)
			line = long
		}
		if len(line) > 0 {
			visit(line, time.Now())
		}
		long = long[:0]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
