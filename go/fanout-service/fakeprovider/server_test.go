package fakeprovider_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rex/fanout-service/fakeprovider"
)

func post(t *testing.T, url, body string) (status int, answer string, err error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer sk-1")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	return response.StatusCode, string(raw), err
}

func TestWithoutStreamTheSameTextComesInOneBody(t *testing.T) {
	server := httptest.NewServer(fakeprovider.New())
	defer server.Close()
	cases := []struct {
		model, content, finish string
		status                 int
		broken                 bool
	}{
		{model: "ok?words=3", content: "result red answer", finish: "stop", status: 200},
		{model: "echo", content: "say this", finish: "stop", status: 200},
		{model: "prose-2", finish: "stop", status: 200},
		{model: "ok&max_tokens", finish: "", status: 404},
		{model: "http-503", status: 503},
		{model: "cut", broken: true, status: 200},
	}
	for _, c := range cases {
		t.Run(c.model, func(t *testing.T) {
			status, raw, err := post(t, server.URL+"/v1/chat/completions", `{"model":"`+c.model+`","messages":[{"role":"user","content":"say this"}]}`)
			if c.broken {
				if err == nil {
					t.Errorf("came whole: %s", raw)
				}
				return
			}
			if err != nil || status != c.status {
				t.Fatalf("%d %v", status, err)
			}
			var answer struct {
				Choices []struct {
					Message struct {
						Content string `json:"content"`
					} `json:"message"`
					FinishReason string `json:"finish_reason"`
				} `json:"choices"`
			}
			if err := json.Unmarshal([]byte(raw), &answer); err != nil {
				t.Fatal(err)
			}
			if c.status != http.StatusOK {
				return
			}
			got := answer.Choices[0]
			if got.FinishReason != c.finish || c.content != "" && got.Message.Content != c.content {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestTheLogTellsOfRequestsAndNoKey(t *testing.T) {
	fake := fakeprovider.New()
	server := httptest.NewServer(fake)
	defer server.Close()
	if _, _, err := post(t, server.URL+"/v1/chat/completions", `{"model":"ok?delay_ms=0","stream":true,"seed":7,"messages":[]}`); err != nil {
		t.Fatal(err)
	}
	log := fake.Log()
	if len(log) != 1 || log[0].Script != "ok" || !log[0].Finished || log[0].AbortedAt != nil || string(log[0].Params) != `{"seed":7,"stream":true}` {
		t.Errorf("%+v", log)
	}
	if len(log[0].KeyHash) != 12 || strings.Contains(log[0].KeyHash, "sk-1") {
		t.Errorf("key hash %q", log[0].KeyHash)
	}
	if status, _, err := post(t, server.URL+"/_/reset", ""); err != nil || status != http.StatusNoContent || len(fake.Log()) != 0 {
		t.Errorf("reset: %d, %v, %d left", status, err, len(fake.Log()))
	}
}
