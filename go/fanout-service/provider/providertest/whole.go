package providertest

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	fanout "rex/fanout-service"
)

func (s Subject) wholes(t *testing.T) {
	for _, record := range s.Whole {
		for _, contentType := range []string{"application/json", "application/json; charset=UTF-8", "text/plain"} {
			call := wholeCall()
			call.Thoughts = true
			sink, answer, err := s.ask(t.Context(), t, call, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Accept") != "application/json" {
					t.Errorf("accepts %q", r.Header.Get("Accept"))
				}
				reply(http.StatusOK, contentType, record.Body)(w, r)
			})
			if err != nil || !same(answer, record.Want) || sink.Texts.String() != record.Text || sink.Thoughts.String() != record.Thoughts {
				t.Errorf("%s: %q, %q, %s %v", record.Name, sink.Texts.String(), sink.Thoughts.String(), show(answer), err)
			}
		}
	}
}

func (s Subject) wholeCuts(t *testing.T) {
	body := strings.TrimSpace(s.Whole[0].Body)
	cut, length := 0, 0
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply(http.StatusOK, "application/json", body[:cut], "Content-Length", strconv.Itoa(length))(w, r)
	}))
	defer upstream.Close()
	subject := s.at(upstream.URL)
	for ; cut < len(body); cut++ {
		// A body that ends early but in order is no JSON; one that breaks off is incomplete.
		for want, declared := range map[fanout.Kind]int{fanout.BadUpstreamResponse: cut, fanout.Incomplete: len(body)} {
			length = declared
			sink := &Sink{T: t}
			_, err := subject.Stream(t.Context(), wholeCall(), fanout.NewKey(Key), sink)
			if err == nil || kindOf(t, err) != want || sink.Count != 0 {
				t.Errorf("cut at %d of %d: %v, want %s", cut, declared, err, want)
			}
		}
	}
}

func (s Subject) wholeTooLarge(t *testing.T) {
	const limit = 32 << 20
	record := s.Whole[0]
	for _, beyond := range []int{0, 1} {
		padding := strings.Repeat(" ", limit+beyond-len(record.Body)) // white space behind the object
		_, err := s.offline(t, wholeCall(), Offline("application/json", record.Body+padding, nil))
		if beyond == 0 && err != nil || beyond > 0 && (err == nil || kindOf(t, err) != fanout.ResponseTooLarge) {
			t.Errorf("32 MiB %+d bytes: %v", beyond, err)
		}
	}
}
