package loadtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"rex/fanout-service/loadtest"
)

// bench is an upstream on a real socket, and a bare proxy in front of it.
type bench struct {
	t               *testing.T
	upstream, proxy *httptest.Server
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, upstream: httptest.NewServer(loadtest.NewUpstream())}
	t.Cleanup(b.upstream.Close)
	to, err := url.Parse(b.upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := loadtest.NewProxy(to)
	b.proxy = httptest.NewServer(proxy)
	t.Cleanup(func() {
		b.proxy.Close()
		proxy.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return b
}

func (b *bench) target(model string) string {
	return fmt.Sprintf(`{"kind":"chat","url":"%s/v1/chat/completions","model":"%s","pids":[%d]}`, b.proxy.URL, model, os.Getpid())
}

// measure runs a measurement and decodes its result into result, by way of its JSON.
func (b *bench) measure(what, spec string, result any) error {
	b.t.Helper()
	measured, err := loadtest.Measure(b.t.Context(), []byte(`{"what":"`+what+`","spec":`+spec+`}`))
	if err != nil {
		return err
	}
	raw, err := json.Marshal(measured)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := json.Unmarshal(raw, result); err != nil {
		b.t.Fatal(err)
	}
	return nil
}

func TestARateAsksWhatItSaysAndCountsEveryPiece(t *testing.T) {
	b := newBench(t)
	for _, stream := range []bool{true, false} {
		var got loadtest.RateResult
		spec := fmt.Sprintf(`{"target":%s,"per_second":100,"seconds":0.2,"stream":%t,"warm":2}`, b.target("paced?chunks=7&delay_ms=1"), stream)
		if err := b.measure("rate", spec, &got); err != nil {
			t.Fatal(err)
		}
		if got.Sent != 20 || got.Chunks != 140 || len(got.Failures) != 0 || got.First.Count != 20 || got.Total.Count != 20 {
			t.Errorf("stream %t: %+v", stream, got)
		}
		if got.First.MinMS <= 0 || got.Total.MinMS < got.First.MinMS {
			t.Errorf("stream %t: first %g, total %g", stream, got.First.MinMS, got.Total.MinMS)
		}
	}
	var got loadtest.RateResult
	if err := b.measure("rate", `{"target":`+b.target("unknown")+`,"per_second":100,"seconds":0.1,"warm":2}`, &got); err == nil {
		t.Error("a target that answers nothing was measured")
	}
	if err := b.measure("rate", `{"target":`+b.target("unknown")+`,"per_second":100,"seconds":0.1}`, &got); err != nil || got.Failures["http 404"] != 10 {
		t.Errorf("%v %+v", err, got)
	}
}

func TestJobsEndAtTheirCount(t *testing.T) {
	var got loadtest.JobsResult
	b := newBench(t)
	spec := `{"target":` + b.target("paced?chunks=3&delay_ms=0") + `,"width":1,"at_once":4,"count":30,"seconds":60,"warm":4}`
	if err := b.measure("jobs", spec, &got); err != nil {
		t.Fatal(err)
	}
	if got.Jobs != 30 || got.Chunks != 90 || got.Wall.Count != 30 || len(got.Failures) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestAHoldSeesAStreamThatMissesAPiece(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct{ expected, short int }{{60, 0}, {61, 10}} {
		var got loadtest.HoldResult
		spec := fmt.Sprintf(`{"target":%s,"upstream":"%s","streams":10,"width":1,"per_second":1000,"seconds":0.1,"settle":0.1,"chunks":%d}`,
			b.target("paced?chunks=60&delay_ms=10"), b.upstream.URL, c.expected)
		if err := b.measure("hold", spec, &got); err != nil {
			t.Fatal(err)
		}
		if got.Open != 10 || got.Chunks != 600 || got.Short != c.short || got.PerSecond <= 0 || got.PeakMiB <= 0 {
			t.Errorf("%d expected: %+v", c.expected, got)
		}
	}
}

func TestLeavingIsSeenByTheUpstream(t *testing.T) {
	b := newBench(t)
	var got loadtest.LeaveResult
	spec := fmt.Sprintf(`{"target":%s,"upstream":"%s","calls":10,"width":1,"how":"disconnect"}`, b.target("paced?delay_ms=20&chunks=100000"), b.upstream.URL)
	if err := b.measure("leave", spec, &got); err != nil {
		t.Fatal(err)
	}
	if got.Opened != 10 || got.Closed != 10 || got.LastMS == nil || *got.LastMS < 0 {
		t.Errorf("%+v", got)
	}
}

func TestRequestsInsideARetryAfterAreCounted(t *testing.T) {
	b := newBench(t)
	var got loadtest.StormResult
	spec := func(model string, spreadMS int) string {
		return fmt.Sprintf(`{"target":%s,"upstream":"%s","fanouts":10,"width":1,"attempts":1,"apart":true,"spread_ms":%d}`, b.target(model), b.upstream.URL, spreadMS)
	}
	if err := b.measure("storm", spec("storm?retry_after_s=0.5&id=a", 10), &got); err != nil {
		t.Fatal(err)
	}
	// A client that knows no gate asks again at once.
	if got.Calls != 11 || got.Seen.Requests != 11 || got.Seen.Inside != 10 || got.Failures["http 429"] != 11 {
		t.Errorf("%+v", got)
	}
	got = loadtest.StormResult{}
	if err := b.measure("storm", spec("storm?retry_after_s=0.5&id=b", 1500), &got); err != nil {
		t.Fatal(err)
	}
	if got.Seen.Inside == 0 || got.Seen.Well == 0 || got.Seen.Inside+got.Seen.Well != 10 || got.Answered != got.Seen.Well {
		t.Errorf("%+v", got)
	}
	got = loadtest.StormResult{}
	if err := b.measure("storm", spec("down?", 10), &got); err != nil || got.Amplification != 1 || got.Failures["http 503"] != 10 {
		t.Errorf("%v %+v", err, got)
	}
}

func TestASettingThatDoesNotExistIsRefused(t *testing.T) {
	b := newBench(t)
	for _, spec := range []string{`{"what":"rate","spec":{"per_minute":1}}`, `{"what":"race","spec":{}}`, `{`} {
		if _, err := loadtest.Measure(t.Context(), []byte(spec)); err == nil {
			t.Errorf("%s was measured", spec)
		}
	}
	if err := b.measure("hold", `{"target":`+b.target("paced?")+`,"upstream":"http://127.0.0.1:1","streams":1,"width":1}`, nil); err == nil || strings.Contains(err.Error(), "nil") {
		t.Errorf("an upstream that is not there: %v", err)
	}
	if loadtest.MachineCPU() <= 0 {
		t.Error("the machine's CPU clock cannot be read")
	}
}
