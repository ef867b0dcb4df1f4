package httpapi

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	fanout "rex/fanout-service"
)

// The version and the limits of the contract.
const (
	version        = 2
	maxBody        = 16 << 20
	maxCalls       = 512
	maxMessages    = 1024
	maxParts       = 64 // of a message
	maxAttempts    = 3
	maxFallbacks   = 3
	maxWait        = 3_600_000 // ms, of a deadline or timeout
	maxCoalesce    = 1000      // ms
	maxModel       = 256
	maxTokens      = 1_000_000
	maxSeed        = 1<<53 - 1
	maxStops       = 4
	maxStop        = 256
	maxTemperature = 2
	maxURL         = 2048
)

var (
	idForm       = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	providerForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
	modelForm    = regexp.MustCompile(`^[^\x00-\x20\x7f]+$`)
	keyForm      = regexp.MustCompile(`^[0-9a-f]{64}$`)
	urlForm      = regexp.MustCompile(`^https?://[^\x00-\x20\x7f]+$`)
)

// asked is what a body asks for: calls, and in which form their answers go back.
type asked struct {
	fanout.Request
	inOnePiece bool // instead of a stream of lines
}

// decode reads the body of POST /fanout, as CONTRACT.md and request.schema.json say.
func decode(body []byte) (asked, error) {
	fields, err := newFields(body)
	if err != nil {
		return asked{}, err
	}
	return decoder{fields}.request()
}

type decoder struct{ fields }

func (d decoder) request() (asked, error) {
	request := asked{Request: fanout.Request{Coalesce: fanout.DefaultCoalesce}}
	ids := map[string]bool{}
	cached := false
	streamed := true
	if err := d.version(); err != nil {
		return asked{}, err
	}
	err := d.object([]member{
		{"v", func() error {
			_, err := d.integer(version, version)
			return err
		}},
		{"id", d.matching(&request.ID, idForm)},
		{"request_id", d.matching(&request.RequestID, idForm)},
		{"workspace", d.matching(&request.Workspace, idForm)},
		{"stream", d.boolean(&streamed)},
		{"deadline_ms", d.milliseconds(&request.Deadline, 1, maxWait)},
		{"coalesce_ms", d.milliseconds(&request.Coalesce, 0, maxCoalesce)},
		{"calls", func() error {
			return d.list(maxCalls, tooLarge, func() error {
				call, err := d.call()
				if err == nil && ids[call.ID] {
					err = invalid("id", "Call ids are unique.")
				}
				ids[call.ID] = true
				cached = cached || call.Cache != nil
				request.Calls = append(request.Calls, call)
				return err
			})
		}},
	}, "v", "id", "deadline_ms", "calls")
	if d.walk.Err() != nil {
		// The grammar is right, so this is all that can be wrong. What was not read may be calls.
		return asked{}, invalid("", "Nested too deeply.")
	}
	if err == nil && cached && request.Workspace == "" {
		err = invalid("workspace", "Required where a call uses the cache.")
	}
	request.inOnePiece = !streamed
	return request, err
}

// version looks ahead and refuses any other: what the fields of another version mean is not known
// here, so that one of them is unknown is not what its sender should hear.
func (d decoder) version() error {
	ahead := *d.walk
	for ahead.Object(); ahead.More('}'); {
		if string(ahead.Key()) == "v" {
			_, err := fields{&ahead}.integer(version, version)
			return within("v", err)
		}
		ahead.Skip()
	}
	return nil
}

func (d decoder) call() (fanout.Call, error) {
	call := fanout.Call{Timeouts: fanout.DefaultTimeouts, Retry: fanout.Retry{Attempts: 1}}
	err := d.object([]member{
		{"id", d.matching(&call.ID, idForm)},
		{"provider", d.matching(&call.Provider, providerForm)},
		{"model", d.model(&call.Model)},
		{"messages", func() error {
			return d.list(maxMessages, tooLarge, func() error {
				message, err := d.message()
				call.Messages = append(call.Messages, message)
				return err
			})
		}},
		{"params", func() error { return d.params(&call.Params) }},
		{"timeouts_ms", func() error { return d.timeouts(&call.Timeouts) }},
		{"whole", d.boolean(&call.Whole)},
		{"thoughts", d.boolean(&call.Thoughts)},
		{"retry", func() error { return d.retry(&call.Retry) }},
		{"fallbacks", func() error {
			return d.list(maxFallbacks, invalid, func() error {
				target, err := d.target()
				call.Fallbacks = append(call.Fallbacks, target)
				return err
			})
		}},
		{"hedge", func() (err error) {
			call.Hedge, err = d.hedge()
			return err
		}},
		{"cache", func() (err error) {
			call.Cache, err = d.cache()
			return err
		}},
	}, "id", "provider", "model", "messages")
	return call, err
}

func (d decoder) retry(retry *fanout.Retry) error {
	return d.object([]member{
		{"attempts", func() error {
			n, err := d.integer(1, maxAttempts)
			retry.Attempts = int(n)
			return err
		}},
		{"restart", d.boolean(&retry.Restart)},
	})
}

func (d decoder) target() (target fanout.Target, err error) {
	err = d.object([]member{
		{"provider", d.matching(&target.Provider, providerForm)},
		{"model", d.model(&target.Model)},
	}, "provider", "model")
	return target, err
}

func (d decoder) hedge() (*fanout.Hedge, error) {
	hedge := &fanout.Hedge{}
	err := d.object([]member{
		{"after_ms", d.milliseconds(&hedge.After, 1, maxWait)},
		{"provider", d.matching(&hedge.Target.Provider, providerForm)},
		{"model", d.model(&hedge.Target.Model)},
	}, "after_ms")
	switch {
	case err != nil:
	case hedge.Target.Provider == "" && hedge.Target.Model != "":
		err = invalid("provider", "Required where there is a model.")
	case hedge.Target.Provider != "" && hedge.Target.Model == "":
		err = invalid("model", "Required where there is a provider.")
	}
	return hedge, err
}

func (d decoder) cache() (*fanout.CacheUse, error) {
	use := &fanout.CacheUse{}
	err := d.object([]member{
		{"key", d.matching(&use.Key, keyForm)},
		{"mode", func() error {
			mode, err := d.text()
			if err != nil {
				return err
			}
			switch mode {
			case "read_write":
				use.Read, use.Write = true, true
			case "read":
				use.Read = true
			case "write":
				use.Write = true
			default:
				return invalid("", "Expected read_write, read or write.")
			}
			return nil
		}},
	}, "key", "mode")
	return use, err
}

func (d decoder) params(params *fanout.Params) error {
	return d.object([]member{
		{"max_tokens", d.count(&params.MaxTokens, 1, maxTokens)},
		{"temperature", d.decimal(&params.Temperature, func(n float64) bool { return n >= 0 && n <= maxTemperature }, "Expected 0 to 2.")},
		{"top_p", d.decimal(&params.TopP, func(n float64) bool { return n > 0 && n <= 1 }, "Expected more than 0, up to 1.")},
		{"seed", d.count(&params.Seed, 0, maxSeed)},
		{"stop", func() error {
			return d.list(maxStops, invalid, func() error {
				stop, err := d.text()
				if err != nil {
					return err
				}
				if n := utf8.RuneCountInString(stop); n == 0 || n > maxStop {
					return invalid("", "Expected 1 to %d characters.", maxStop)
				}
				params.Stop = append(params.Stop, stop)
				return nil
			})
		}},
		{"response_format", func() (err error) {
			params.ResponseFormat, err = d.rawObject()
			return err
		}},
	})
}

func (d decoder) timeouts(timeouts *fanout.Timeouts) error {
	return d.object([]member{
		{"connect", d.milliseconds(&timeouts.Connect, 1, maxWait)},
		{"first_token", d.milliseconds(&timeouts.FirstToken, 1, maxWait)},
		{"stall", d.milliseconds(&timeouts.Stall, 1, maxWait)},
		{"total", d.milliseconds(&timeouts.Total, 1, maxWait)},
	})
}

func (d decoder) matching(into *string, form *regexp.Regexp) reader {
	return func() error {
		text, err := d.text()
		if err != nil {
			return err
		}
		if !form.MatchString(text) {
			return invalid("", "Expected %s.", strings.Trim(form.String(), "^$"))
		}
		*into = text
		return nil
	}
}

func (d decoder) model(into *string) reader {
	return func() error {
		if err := d.matching(into, modelForm)(); err != nil {
			return err
		}
		if utf8.RuneCountInString(*into) > maxModel {
			return invalid("", "At most %d characters.", maxModel)
		}
		return nil
	}
}

func (d decoder) boolean(into *bool) reader {
	return func() (err error) {
		*into, err = d.truth()
		return err
	}
}

func (d decoder) milliseconds(into *time.Duration, from, to int64) reader {
	return func() error {
		n, err := d.integer(from, to)
		*into = time.Duration(n) * time.Millisecond
		return err
	}
}

func (d decoder) count(into **int64, from, to int64) reader {
	return func() error {
		n, err := d.integer(from, to)
		*into = &n
		return err
	}
}

func (d decoder) decimal(into **float64, valid func(float64) bool, message string) reader {
	return func() error {
		n, err := d.number()
		if err != nil {
			return err
		}
		if !valid(n) {
			return invalid("", "%s", message)
		}
		*into = &n
		return nil
	}
}
