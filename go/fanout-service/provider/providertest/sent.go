package providertest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	fanout "rex/fanout-service"
	"rex/fanout-service/provider"
)

// Request is what a call became.
type Request struct {
	Path   string // with the query
	Header http.Header
	Body   string
}

// Sent returns the request that a call becomes; it is answered with a refusal.
func Sent(t *testing.T, s Subject, config provider.Config, call *fanout.Call) (sent Request) {
	t.Helper()
	s.client = Client(t)
	_, _, err := Subject{
		New: func(at provider.Config, client *http.Client) *provider.Endpoint {
			config.BaseURL = at.BaseURL + "/base"
			return s.New(config, client)
		},
		client: s.client,
	}.ask(t.Context(), t, call, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s of %s: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		sent = Request{Path: r.URL.RequestURI(), Header: r.Header, Body: string(body)}
		w.WriteHeader(http.StatusTeapot)
	})
	if err == nil {
		t.Error("a teapot gave an answer")
	}
	return sent
}

func (s Subject) noKey(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Authorization", "X-Api-Key", "X-Goog-Api-Key"} {
			if value, ok := r.Header[name]; ok {
				t.Errorf("sent %s: %q", name, value)
			}
		}
		stream(s.Recorded[0].Stream, 0)(w, r)
	}))
	defer upstream.Close()
	if _, err := s.at(upstream.URL).Stream(t.Context(), Call(), fanout.NewKey(""), &Sink{T: t}); err != nil {
		t.Error(err)
	}
}

// SameJSON checks that two JSON texts mean the same.
func SameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Pictures is a conversation with a system message, text, an image by its data and one by its
// address, and an answer of the model's.
func Pictures() []fanout.Message {
	return []fanout.Message{
		{Role: "system", Content: "Be <brief>."},
		{Role: "user", Parts: []fanout.Part{
			{Text: "Compare"}, {MediaType: "image/png", Data: "aGk="}, {URL: "https://pictures.example/a.jpeg?size=1&x=2"},
		}},
		{Role: "assistant", Content: "Alike."},
		{Role: "user", Content: "Sure?"},
	}
}
