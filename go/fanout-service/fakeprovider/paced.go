package fakeprovider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Mark stands exactly once in every piece of a Paced answer's text, so that a reader counts the
// pieces that reached it whatever way they were put together.
const Mark = '~'

// paceGrid is what later pieces' moments are rounded up to: streams that are due together wake
// together, as with one shared ticker, and the upstream costs little beside what it loads.
const paceGrid = time.Millisecond

// Paced is the upstream of load tests: an http.Handler that speaks the OpenAI chat completions
// format, misbehaves in nothing and keeps no log, only counts. Its bytes are prepared once a model;
// a piece costs a timer, a write and a flush.
//
// The model says how it answers: "paced?first_ms=50&delay_ms=10&chunks=64". The header, the role and
// the first piece leave together, first_ms after the request; one piece follows every delay_ms.
// A request without stream gets everything in one body after first_ms.
type Paced struct {
	begun, finished, aborted, chunks atomic.Int64
	lastAbort                        atomic.Int64 // Unix nanoseconds
	plans                            sync.Map     // model → *pacedPlan
}

// Counts is what a Paced upstream has seen since it began.
type Counts struct {
	Begun       int64 `json:"begun"`
	Finished    int64 `json:"finished"`
	Aborted     int64 `json:"aborted"` // the client left before the end
	Open        int64 `json:"open"`
	Chunks      int64 `json:"chunks"`        // pieces of text written
	LastAbortNS int64 `json:"last_abort_ns"` // when the latest client was seen to leave, Unix time
}

// Counts may be called at any time.
func (p *Paced) Counts() Counts {
	c := Counts{
		Finished: p.finished.Load(), Aborted: p.aborted.Load(), Chunks: p.chunks.Load(), LastAbortNS: p.lastAbort.Load(),
	}
	c.Begun = p.begun.Load()
	c.Open = c.Begun - c.Finished - c.Aborted
	return c
}

// ServeHTTP answers a chat completion.
func (p *Paced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Read whole, so that a client that leaves is noticed at once.
	body, err := io.ReadAll(r.Body)
	began := time.Now()
	if err != nil {
		return
	}
	var request struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		http.Error(w, `{"error":{"message":"not JSON","type":"invalid_request_error"}}`, http.StatusBadRequest)
		return
	}
	plan, err := p.plan(request.Model)
	if err != nil {
		http.Error(w, `{"error":{"message":"no such model","type":"invalid_request_error"}}`, http.StatusNotFound)
		return
	}
	p.begun.Add(1)
	stop := context.AfterFunc(r.Context(), func() {
		p.lastAbort.Store(time.Now().UnixNano())
		p.aborted.Add(1)
	})
	answer := p.whole
	if request.Stream {
		answer = p.stream
	}
	done := answer(w, r, plan, began)
	switch {
	case !stop(): // counted when the client left
	case done:
		p.finished.Add(1)
	default: // the write failed first
		p.lastAbort.Store(time.Now().UnixNano())
		p.aborted.Add(1)
	}
}

func (p *Paced) whole(w http.ResponseWriter, r *http.Request, plan *pacedPlan, began time.Time) bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	if !SleepUntil(r.Context(), timer, began.Add(plan.first)) {
		return false
	}
	w.Header()["Content-Type"] = jsonType
	w.Header().Set("Content-Length", strconv.Itoa(len(plan.body)))
	if _, err := w.Write(plan.body); err != nil {
		return false
	}
	p.chunks.Add(int64(plan.chunks))
	return true
}

var (
	eventStreamType = []string{"text/event-stream"}
	jsonType        = []string{"application/json"}
)

func (p *Paced) stream(w http.ResponseWriter, r *http.Request, plan *pacedPlan, began time.Time) bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	if !SleepUntil(r.Context(), timer, began.Add(plan.first)) {
		return false
	}
	w.Header()["Content-Type"] = eventStreamType
	flusher, ok := w.(http.Flusher)
	if !ok {
		return false
	}
	for i := range plan.chunks {
		if i > 0 && plan.delay > 0 {
			due := began.Add(plan.first + time.Duration(i)*plan.delay)
			if !pacedSleep(r.Context(), timer, due.Truncate(paceGrid).Add(paceGrid)) {
				return false
			}
		}
		bytes := plan.piece
		if i == 0 {
			bytes = plan.opening
		}
		if _, err := w.Write(bytes); err != nil {
			return false
		}
		flusher.Flush()
		p.chunks.Add(1)
	}
	_, err := w.Write(plan.ending)
	return err == nil
}

// pacedSleep waits for a moment, to a millisecond; false when the client leaves before it.
func pacedSleep(ctx context.Context, timer *time.Timer, until time.Time) bool {
	wait := time.Until(until)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer.Reset(wait)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// timerGrain is how much too late a timer of an idle Go program may fire: it waits in epoll, which
// counts milliseconds.
const timerGrain = 2 * time.Millisecond

// SleepUntil waits for a moment and, on a machine that is not busy, meets it to about a tenth of a
// millisecond, which is less than what load tests are about. Its end is slept by the kernel's
// clock, on a thread of its own, and does not notice ctx. False when ctx ends before.
func SleepUntil(ctx context.Context, timer *time.Timer, until time.Time) bool {
	if rough := until.Add(-timerGrain); time.Until(rough) > 0 && !pacedSleep(ctx, timer, rough) {
		return false
	}
	if rest := time.Until(until); rest > 0 {
		spec := syscall.NsecToTimespec(int64(rest))
		_ = syscall.Nanosleep(&spec, nil) // a signal may cut it short, which a load test survives
	}
	return ctx.Err() == nil
}

// pacedPlan is a model's answer: its pace, and its bytes.
type pacedPlan struct {
	first, delay time.Duration
	chunks       int

	opening, piece, ending []byte // of the event stream: the role and the first piece, a piece, the rest
	body                   []byte // of a request without stream
}

// plan reads the model's options once and keeps what it made of them.
func (p *Paced) plan(model string) (*pacedPlan, error) {
	if found, ok := p.plans.Load(model); ok {
		if kept, ok := found.(*pacedPlan); ok {
			return kept, nil
		}
	}
	made, err := newPacedPlan(model)
	if err == nil {
		p.plans.Store(model, made)
	}
	return made, err
}

const (
	maxPacedMS     = 3_600_000
	maxPacedChunks = 1_000_000
)

func newPacedPlan(model string) (*pacedPlan, error) {
	name, query, _ := strings.Cut(model, "?")
	options, err := url.ParseQuery(query)
	if err != nil || name != "paced" {
		return nil, errors.New("no such model")
	}
	number := func(option string, fallback, most int) int {
		text := options.Get(option)
		if text == "" {
			return fallback
		}
		n, parsed := strconv.Atoi(text)
		if parsed != nil || n < 0 || n > most {
			err = fmt.Errorf("%s is not a number from 0 to %d", option, most)
		}
		return n
	}
	made := &pacedPlan{
		first:  time.Duration(number("first_ms", 0, maxPacedMS)) * time.Millisecond,
		delay:  time.Duration(number("delay_ms", 10, maxPacedMS)) * time.Millisecond,
		chunks: max(1, number("chunks", 64, maxPacedChunks)),
	}
	if err != nil {
		return nil, err
	}
	const word = ` w` + string(Mark) + `rds`
	event := func(choices, more string) string {
		return `data: {"id":"chatcmpl-paced","object":"chat.completion.chunk","created":1700000000,"model":"paced",` +
			`"choices":[` + choices + `]` + more + "}\n\n"
	}
	delta := func(delta, finish string) string {
		return event(`{"index":0,"delta":`+delta+`,"logprobs":null,"finish_reason":`+finish+`}`, "")
	}
	usage := fmt.Sprintf(`,"usage":{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}`, made.chunks, 8+made.chunks)
	made.piece = []byte(delta(`{"content":"`+word+`"}`, "null"))
	made.opening = append([]byte(delta(`{"role":"assistant","content":""}`, "null")), made.piece...)
	made.ending = []byte(delta(`{}`, `"stop"`) + event("", usage) + "data: [DONE]\n\n")
	made.body = []byte(`{"id":"chatcmpl-paced","object":"chat.completion","created":1700000000,"model":"paced",` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":"` + strings.Repeat(word, made.chunks) +
		`"},"finish_reason":"stop"}]` + usage + `}`)
	return made, nil
}
