package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"rex/fanout-service/fakeprovider"
)

// Upstream is what every measurement ends at: the Paced answers, two that refuse, and a sink for
// spans. Its paths:
//
//	POST /v1/chat/completions   models "paced?…", "storm?retry_after_s=2&id=x" and "down?id=x"
//	GET  /_/counts              fakeprovider.Counts
//	GET  /_/refusals?model=…    Refusals of a model that refuses
//	POST /v1/traces             takes OTLP spans and forgets them
type Upstream struct {
	mux   *http.ServeMux
	paced fakeprovider.Paced

	mu       sync.Mutex
	refusing map[string]*Refusals
}

// Refusals are the requests for a model that refuses. "storm" answers 429 until retry_after_s after
// its first request, and well from then on; "down" always answers 503.
type Refusals struct {
	Requests int `json:"requests"`
	// Inside are those that came while the first answer's Retry-After, which the asker knew, had
	// not yet passed. What was on its way when that answer left is not counted.
	Inside int `json:"inside"`
	Well   int `json:"well"` // answered 200

	known, until time.Time
}

// apart begins the part of a model's name that only sets models apart; they count as one.
const apart = "&apart="

// underWay is how long after the first 429 a request may come without knowing of it.
const underWay = 50 * time.Millisecond

// NewUpstream returns an upstream that has seen nothing yet.
func NewUpstream() *Upstream {
	u := &Upstream{mux: http.NewServeMux(), refusing: map[string]*Refusals{}}
	u.mux.HandleFunc("POST /v1/chat/completions", u.completions)
	u.mux.HandleFunc("GET /_/counts", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, u.paced.Counts()) })
	u.mux.HandleFunc("GET /_/refusals", func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		defer u.mu.Unlock()
		seen := Refusals{}
		if found := u.refusing[r.URL.Query().Get("model")]; found != nil {
			seen = *found
		}
		writeJSON(w, seen)
	})
	u.mux.HandleFunc("POST /v1/traces", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a span that is lost is not missed
	})
	return u
}

func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) { u.mux.ServeHTTP(w, r) }

func (u *Upstream) completions(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if bytes.Contains(body, []byte(`"model":"storm?`)) || bytes.Contains(body, []byte(`"model":"down?`)) {
		body = u.refuse(w, body)
	}
	if body != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		u.paced.ServeHTTP(w, r)
	}
}

// refuse answers for the models that do, and returns nil; or the request to answer in its place.
func (u *Upstream) refuse(w http.ResponseWriter, body []byte) []byte {
	var request struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	if json.Unmarshal(body, &request) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return nil
	}
	name, query, _ := strings.Cut(request.Model, "?")
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	model, _, _ := strings.Cut(request.Model, apart)
	seen := u.refusing[model]
	if seen == nil {
		seen = &Refusals{known: now.Add(underWay), until: now.Add(retryAfter(query))}
		u.refusing[model] = seen
	}
	seen.Requests++
	switch {
	case name == "down":
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	case now.Before(seen.until):
		if now.After(seen.known) {
			seen.Inside++
		}
		left := seen.until.Sub(now)
		w.Header().Set("Retry-After-Ms", strconv.FormatInt(left.Milliseconds()+1, 10))
		w.WriteHeader(http.StatusTooManyRequests)
		return nil
	default:
		seen.Well++
		return []byte(`{"model":"paced?chunks=1","stream":` + strconv.FormatBool(request.Stream) + `}`)
	}
}

func retryAfter(query string) time.Duration {
	_, text, _ := strings.Cut(query, "retry_after_s=")
	text, _, _ = strings.Cut(text, "&")
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return time.Second
	}
	return time.Duration(seconds * float64(time.Second))
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the asker may have left
}

// upstreamAt asks an Upstream in another process what it has seen.
type upstreamAt string

func (u upstreamAt) counts(ctx context.Context) (fakeprovider.Counts, error) {
	var counts fakeprovider.Counts
	return counts, u.get(ctx, "/_/counts", &counts)
}

func (u upstreamAt) refusals(ctx context.Context, model string) (Refusals, error) {
	var seen Refusals
	return seen, u.get(ctx, "/_/refusals?model="+strings.NewReplacer("?", "%3F", "&", "%26", "=", "%3D").Replace(model), &seen)
}

func (u upstreamAt) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, string(u)+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	return json.NewDecoder(response.Body).Decode(into)
}

// restLimit is how long streams of an earlier measurement may take to end.
const restLimit = 30 * time.Second

// rest waits until no stream is open and returns the counts of that moment: what an earlier
// measurement left must not count for the next.
func (u upstreamAt) rest(ctx context.Context) (fakeprovider.Counts, error) {
	if _, err := u.counts(ctx); err != nil {
		return fakeprovider.Counts{}, err
	}
	counts, ok := u.until(ctx, restLimit, func(c fakeprovider.Counts) bool { return c.Open == 0 })
	if !ok {
		return counts, fmt.Errorf("%d streams of an earlier measurement are still open", counts.Open)
	}
	return counts, nil
}

// until asks every few milliseconds whether the counts are as wanted, up to a limit.
func (u upstreamAt) until(ctx context.Context, limit time.Duration, wanted func(fakeprovider.Counts) bool) (fakeprovider.Counts, bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last fakeprovider.Counts
	for {
		if counts, err := u.counts(ctx); err == nil {
			if last = counts; wanted(counts) {
				return counts, true
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return last, false
		}
	}
}
