package fakeprovider_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rex/fanout-service/fakeprovider"
)

func TestRetryAfterComesInEveryForm(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for _, c := range []struct{ options, retryAfter, inMS string }{
		{"", "2", ""},
		{"?retry_after=0", "0", ""},
		{"?retry_after=0.5", "0.5", ""},
		{"?retry_after=3600", "3600", ""},
		{"?retry_after=abc", "abc", ""},
		{"?retry_after=-5", "-5", ""},
		{"?retry_after=none", "", ""},
		{"?retry_after_ms=1500", "", "1500"},
		{"?retry_after_ms=1500&retry_after=9", "9", "1500"},
	} {
		got := u.ask("openai", "rate-limited"+c.options, true)
		if got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") != c.retryAfter || got.header.Get("Retry-After-Ms") != c.inMS {
			t.Errorf("%s: %+v", c.options, got)
		}
	}
	moment, err := http.ParseTime(u.ask("anthropic", "rate-limited?retry_after=date&in_ms=90000", true).header.Get("Retry-After"))
	if wait := time.Until(moment); err != nil || wait < 80*time.Second || wait > 92*time.Second {
		t.Errorf("a date %v away, %v", wait, err)
	}
	if got := u.ask("gemini", "rate-limited?retry_after=none&retry_info=17s", true); !strings.Contains(got.body, `RetryInfo","retryDelay":"17s"`) {
		t.Errorf("%+v", got)
	}
	if got := u.ask("openai", "rate-limited?status=503&should_retry=false", true); got.status != 503 || got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("%+v", got)
	}
}

func TestEachFormatRefusesInItsOwnWords(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for _, c := range []struct {
		wire, model string
		status      int
		says        string
	}{
		{"openai", "quota-exhausted", 429, `"code":"insufficient_quota"`},
		{"anthropic", "quota-exhausted", 400, `"type":"invalid_request_error","message":"Your credit balance`},
		{"gemini", "quota-exhausted", 429, `google.rpc.QuotaFailure`},
		{"openai", "context-too-long", 400, `"code":"context_length_exceeded"`},
		{"anthropic", "context-too-long", 400, `prompt is too long`},
		{"gemini", "context-too-long", 400, `exceeds the maximum number of tokens`},
		{"openai", "overloaded", 503, `overloaded`},
		{"anthropic", "overloaded", 529, `"type":"overloaded_error"`},
		{"gemini", "overloaded", 503, `"status": "UNAVAILABLE"`},
		{"openai", "too-concurrent", 429, `concurrent`},
		{"anthropic", "too-concurrent", 429, `concurrent`},
		{"gemini", "too-concurrent", 429, `concurrent`},
		{"openai", "bad-key", 401, `sk-1`},
		{"anthropic", "bad-key", 401, `sk-1`},
		{"gemini", "bad-key", 400, `sk-1`},
		{"anthropic", "http-413", 413, `"type":"request_too_large"`},
		{"gemini", "http-504", 504, `"status": "DEADLINE_EXCEEDED"`},
		{"openai", "http-400?type=t&code=c&message=m", 400, `{"error":{"message":"m","type":"t","param":null,"code":"c"}}`},
		{"gemini", "error-list", 400, "[{\n  \"error\""},
		{"openai", "html-error", 502, "<html>"},
	} {
		got := u.ask(c.wire, c.model, true)
		if got.err != nil || got.status != c.status || !strings.Contains(got.body, c.says) {
			t.Errorf("%s of %s: %+v", c.model, c.wire, got)
		}
		if strings.HasSuffix(c.model, "-key") || c.model == "html-error" {
			continue
		}
		if !json.Valid([]byte(got.body)) {
			t.Errorf("%s of %s is no JSON: %s", c.model, c.wire, got.body)
		}
	}
}

func TestAnErrorEventHasItsFormatsForm(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for wire, want := range map[string]string{
		"openai":    `{"error":{"message":"scripted failure","type":"overloaded_error","param":null,"code":"c"}}`,
		"anthropic": `{"type":"error","error":{"type":"overloaded_error","message":"scripted failure"},"request_id":"req_fake"}`,
		"gemini":    "{\n  \"error\": {\n    \"code\": 500,\n    \"message\": \"scripted failure\",\n    \"status\": \"overloaded_error\"\n  }\n}",
	} {
		got := u.ask(wire, "error-event?delay_ms=0&type=overloaded_error&code=c", true)
		events := data(got.body)
		if got.status != http.StatusOK || events[len(events)-1] != want {
			t.Errorf("%s: %q", wire, events[len(events)-1])
		}
	}
}

func TestABodyIsCutAtEveryByte(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for _, stream := range []bool{true, false} {
		// The model's name stands in the body: numbers of one length keep it the same size.
		model := func(n int, how string) string {
			return "cut-at?delay_ms=0&words=2&how=" + how + "&bytes=" + strconv.Itoa(10_000 + n)[1:]
		}
		whole := u.ask("openai", model(9999, "fin"), stream)
		if whole.err != nil || len(whole.body) < 300 {
			t.Fatalf("%+v", whole)
		}
		for n := range len(whole.body) {
			got := u.ask("openai", model(n, "fin"), stream)
			if got.status != http.StatusOK || got.err == nil || len(got.body) != n {
				t.Fatalf("fin at %d: %d bytes, %v", n, len(got.body), got.err)
			}
		}
		for _, n := range []int{0, 1, 100, len(whole.body) - 1} {
			if got := u.ask("openai", model(n, "rst"), stream); got.err == nil {
				t.Errorf("rst at %d: %+v", n, got)
			}
			if got := u.ask("openai", model(n, "end"), stream); stream && (got.err != nil || len(got.body) != n) {
				t.Errorf("end at %d: %+v", n, got)
			}
		}
	}
}

func TestTheFirstRequestsOfAKeyFail(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	for _, key := range []string{"sk-1", "sk-2"} {
		var statuses []int
		for range 4 {
			statuses = append(statuses, u.asKey(key, "fail-first?n=2&status=529&delay_ms=0").status)
		}
		if !slices.Equal(statuses, []int{529, 529, 200, 200}) {
			t.Errorf("%s: %v", key, statuses)
		}
	}
	if got := u.asKey("sk-1", "fail-first?n=1&as=reset-before&then=http-404"); got.err == nil {
		t.Errorf("%+v", got)
	}
	if got := u.asKey("sk-1", "fail-first?n=1&as=reset-before&then=http-404"); got.status != 404 {
		t.Errorf("%+v", got)
	}
	if got := u.asKey("sk-1", "fail-first?as=flaky"); got.status != 404 || !strings.Contains(got.body, "flaky") {
		t.Errorf("a mood in a mood: %+v", got)
	}
}

func TestAFlakyProviderFailsByItsSeed(t *testing.T) {
	const model = "flaky?percent=50&status=500&delay_ms=0&words=1"
	statuses := func(model string) (out []int) {
		u := start(t, fakeprovider.Options{})
		for range 100 {
			out = append(out, u.ask("openai", model, false).status)
		}
		return out
	}
	first := statuses(model)
	failed := 0
	for _, status := range first {
		if status == 500 {
			failed++
		}
	}
	if failed < 30 || failed > 70 {
		t.Errorf("%d of 100 failed", failed)
	}
	if !slices.Equal(first, statuses(model)) || slices.Equal(first, statuses(model+"&seed=2")) {
		t.Error("the seed does not decide")
	}
}

func TestAProviderIsDownAndComesBack(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	const model = "down?for_ms=80&status=503&delay_ms=0"
	if got := u.ask("openai", model, false); got.status != 503 {
		t.Errorf("%+v", got)
	}
	time.Sleep(100 * time.Millisecond)
	if got := u.ask("openai", model, false); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestACrowdedProviderTakesSoManyAtOnce(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	const model = "crowded?limit=2&then=stall-first"
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for range 2 {
		response, err := u.client.Do(u.request(ctx, "anthropic", model, true))
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatal(response, err)
		}
		defer func() { _ = response.Body.Close() }()
	}
	for range 3 {
		if got := u.ask("anthropic", model, true); got.status != 429 || !strings.Contains(got.body, "concurrent") {
			t.Errorf("%+v", got)
		}
	}
	if stats := u.fake.Stats().Scripts["crowded"]; stats.InFlight != 2 || stats.MaxInFlight != 3 {
		t.Errorf("%+v", stats)
	}
	leave()
	u.settled()
	if got := u.ask("anthropic", "crowded?limit=0&as=overloaded", true); got.status != 529 {
		t.Errorf("%+v", got)
	}
	open, err := u.client.Do(u.request(t.Context(), "anthropic", model, true))
	if err != nil || open.StatusCode != http.StatusOK {
		t.Fatal("a place was not given back", err)
	}
	_ = open.Body.Close()
}

func TestRequestsInsideAWindowAreEarly(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	const model = "window?window_ms=150&delay_ms=0"
	first := u.asKey("sk-1", model)
	if first.status != 429 || first.header.Get("Retry-After") != "1" || first.header.Get("Retry-After-Ms") == "" {
		t.Errorf("%+v", first)
	}
	if got := u.asKey("sk-1", model); got.status != 429 {
		t.Errorf("%+v", got)
	}
	if got := u.asKey("sk-1", "ok?delay_ms=0"); got.status != 200 { // another model, the same key
		t.Errorf("%+v", got)
	}
	if got := u.asKey("sk-2", "ok?delay_ms=0"); got.status != 200 { // another key is free
		t.Errorf("%+v", got)
	}
	time.Sleep(160 * time.Millisecond)
	if got := u.asKey("sk-1", model); got.status != 200 {
		t.Errorf("%+v", got)
	}
	var early []bool
	for _, entry := range u.settled() {
		early = append(early, entry.Early)
	}
	if !slices.Equal(early, []bool{false, true, true, false, false}) || u.fake.Stats().Early != 2 {
		t.Errorf("%v", early)
	}
}

func TestAMeteredProviderTellsWhatIsLeft(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	const model = "metered?requests=2&tokens=100&chunks=8&delay_ms=0"
	for _, wire := range wires {
		request := u.request(t.Context(), wire, model, true)
		for _, header := range []string{"Authorization", "X-Api-Key", "X-Goog-Api-Key"} {
			if request.Header.Get(header) != "" {
				request.Header.Set(header, "Bearer "+wire) // a key of its own, and with it a limit
			}
		}
		first := u.send(request)
		prefix := map[string]string{"openai": "X-Ratelimit-Remaining-Requests", "anthropic": "Anthropic-Ratelimit-Requests-Remaining"}[wire]
		if first.status != 200 || prefix != "" && first.header.Get(prefix) != "1" {
			t.Errorf("%s: %+v", wire, first)
		}
	}
	third := reply{}
	for range 3 {
		third = u.asKey("another", model)
	}
	if third.status != 429 || third.header.Get("X-Ratelimit-Remaining-Requests") != "0" || third.header.Get("X-Ratelimit-Remaining-Tokens") != "80" {
		t.Errorf("%+v", third)
	}
	if reset, err := time.ParseDuration(third.header.Get("X-Ratelimit-Reset-Requests")); err != nil || reset <= 0 || reset > time.Minute {
		t.Errorf("%v %v", reset, err)
	}
	if reset, err := time.Parse(time.RFC3339, u.ask("anthropic", model+"&id=2", true).header.Get("Anthropic-Ratelimit-Input-Tokens-Reset")); err != nil || time.Until(reset) > 62*time.Second {
		t.Errorf("%v %v", reset, err)
	}
	if got := u.asKey("sk-1", "metered?tokens=5"); got.status != 429 {
		t.Errorf("more tokens than the limit: %+v", got)
	}
}

func TestKeysFareDifferently(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	hash := map[string]string{}
	for _, key := range []string{"sk-dead", "sk-limited", "sk-fine"} {
		u.asKey(key, "ok?delay_ms=0")
		log := u.settled()
		hash[key] = log[len(log)-1].KeyHash
	}
	model := "keys?delay_ms=0&retry_after=7&dead=0000," + hash["sk-dead"] + "&limited=" + hash["sk-limited"][:6]
	if got := u.asKey("sk-dead", model); got.status != 401 {
		t.Errorf("%+v", got)
	}
	if got := u.asKey("sk-limited", model); got.status != 429 || got.header.Get("Retry-After") != "7" {
		t.Errorf("%+v", got)
	}
	if got := u.asKey("sk-fine", model); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestOnlyTheFirstOfSeveralIsSlow(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	const model = "slow-once?slow_ms=60000&delay_ms=0"
	ctx, leave := context.WithCancel(t.Context())
	slow, err := u.client.Do(u.request(ctx, "openai", model, true))
	if err != nil {
		t.Fatal(err)
	}
	if got := u.ask("openai", model, true); got.status != 200 || !strings.Contains(got.body, "[DONE]") {
		t.Errorf("%+v", got)
	}
	leave()
	_ = slow.Body.Close()
	if log := u.settled(); log[0].AbortedAt == nil || !log[1].Finished {
		t.Errorf("%+v", log)
	}
}

func TestARedirectLeadsIntoTheTrap(t *testing.T) {
	u := start(t, fakeprovider.Options{})
	if got := u.ask("openai", "redirect?to=metadata&status=307", true); got.status != 307 || got.header.Get("Location") != "http://169.254.169.254/latest/meta-data/" {
		t.Errorf("%+v", got)
	}
	u.client.CheckRedirect = nil
	if got := u.ask("gemini", "redirect?status=307", true); got.status != http.StatusTeapot {
		t.Errorf("%+v", got)
	}
	log := u.settled()
	if last := log[len(log)-1]; last.Script != "trap" || last.KeyHash != log[0].KeyHash {
		t.Errorf("%+v", log)
	}
}
