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
	whole bool // in one piece, instead of a stream of lines
}

// decode reads the body of POST /fanout, as CONTRACT.md and request.schema.json say.
func decode(body []byte) (asked, error) {
	d := decoder{newFields(body)}
	request, err := d.request()
	if err == nil {
		err = d.end()
	}
	return request, err
}

type decoder struct{ fields }

func (d decoder) request() (asked, error) {
	request := asked{Request: fanout.Request{Coalesce: fanout.DefaultCoalesce}}
	ids := map[string]bool{}
	cached := false
	streamed := true
	err := d.object("", map[string]member{
		"v": func(path string) error {
			_, err := d.whole(path, version, version)
			return err
		},
		"id":          d.matching(&request.ID, idForm),
		"request_id":  d.matching(&request.RequestID, idForm),
		"workspace":   d.matching(&request.Workspace, idForm),
		"stream":      d.boolean(&streamed),
		"deadline_ms": d.milliseconds(&request.Deadline, 1, maxWait),
		"coalesce_ms": d.milliseconds(&request.Coalesce, 0, maxCoalesce),
		"calls": func(path string) error {
			return d.list(path, maxCalls, tooLarge, func(path string) error {
				call, err := d.call(path)
				if err == nil && ids[call.ID] {
					err = invalid(path+".id", "Call ids are unique.")
				}
				ids[call.ID] = true
				cached = cached || call.Cache != nil
				request.Calls = append(request.Calls, call)
				return err
			})
		},
	}, "v", "id", "deadline_ms", "calls")
	if err == nil && cached && request.Workspace == "" {
		err = invalid("workspace", "Required where a call uses the cache.")
	}
	request.whole = !streamed
	return request, err
}

func (d decoder) call(path string) (fanout.Call, error) {
	call := fanout.Call{Timeouts: fanout.DefaultTimeouts, Retry: fanout.Retry{Attempts: 1}}
	err := d.object(path, map[string]member{
		"id":       d.matching(&call.ID, idForm),
		"provider": d.matching(&call.Provider, providerForm),
		"model":    d.model(&call.Model),
		"messages": func(path string) error {
			return d.list(path, maxMessages, tooLarge, func(path string) error {
				message, err := d.message(path)
				call.Messages = append(call.Messages, message)
				return err
			})
		},
		"params":      func(path string) error { return d.params(path, &call.Params) },
		"timeouts_ms": func(path string) error { return d.timeouts(path, &call.Timeouts) },
		"whole":       d.boolean(&call.Whole),
		"thoughts":    d.boolean(&call.Thoughts),
		"retry":       func(path string) error { return d.retry(path, &call.Retry) },
		"fallbacks": func(path string) error {
			return d.list(path, maxFallbacks, invalid, func(path string) error {
				target, err := d.target(path)
				call.Fallbacks = append(call.Fallbacks, target)
				return err
			})
		},
		"hedge": func(path string) (err error) {
			call.Hedge, err = d.hedge(path)
			return err
		},
		"cache": func(path string) (err error) {
			call.Cache, err = d.cache(path)
			return err
		},
	}, "id", "provider", "model", "messages")
	return call, err
}

func (d decoder) retry(path string, retry *fanout.Retry) error {
	return d.object(path, map[string]member{
		"attempts": func(path string) error {
			n, err := d.whole(path, 1, maxAttempts)
			retry.Attempts = int(n)
			return err
		},
		"restart": d.boolean(&retry.Restart),
	})
}

func (d decoder) target(path string) (target fanout.Target, err error) {
	err = d.object(path, map[string]member{
		"provider": d.matching(&target.Provider, providerForm),
		"model":    d.model(&target.Model),
	}, "provider", "model")
	return target, err
}

func (d decoder) hedge(path string) (*fanout.Hedge, error) {
	hedge := &fanout.Hedge{}
	err := d.object(path, map[string]member{
		"after_ms": d.milliseconds(&hedge.After, 1, maxWait),
		"provider": d.matching(&hedge.Target.Provider, providerForm),
		"model":    d.model(&hedge.Target.Model),
	}, "after_ms")
	switch {
	case err != nil:
	case hedge.Target.Provider == "" && hedge.Target.Model != "":
		err = invalid(path+".provider", "Required where there is a model.")
	case hedge.Target.Provider != "" && hedge.Target.Model == "":
		err = invalid(path+".model", "Required where there is a provider.")
	}
	return hedge, err
}

func (d decoder) cache(path string) (*fanout.CacheUse, error) {
	use := &fanout.CacheUse{}
	err := d.object(path, map[string]member{
		"key": d.matching(&use.Key, keyForm),
		"mode": func(path string) error {
			mode, err := d.text(path)
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
				return invalid(path, "Expected read_write, read or write.")
			}
			return nil
		},
	}, "key", "mode")
	return use, err
}

func (d decoder) params(path string, params *fanout.Params) error {
	return d.object(path, map[string]member{
		"max_tokens":  d.count(&params.MaxTokens, 1, maxTokens),
		"temperature": d.decimal(&params.Temperature, func(n float64) bool { return n >= 0 && n <= maxTemperature }, "Expected 0 to 2."),
		"top_p":       d.decimal(&params.TopP, func(n float64) bool { return n > 0 && n <= 1 }, "Expected more than 0, up to 1."),
		"seed":        d.count(&params.Seed, 0, maxSeed),
		"stop": func(path string) error {
			return d.list(path, maxStops, invalid, func(path string) error {
				stop, err := d.text(path)
				if err != nil {
					return err
				}
				if n := utf8.RuneCountInString(stop); n == 0 || n > maxStop {
					return invalid(path, "Expected 1 to %d characters.", maxStop)
				}
				params.Stop = append(params.Stop, stop)
				return nil
			})
		},
		"response_format": func(path string) (err error) {
			params.ResponseFormat, err = d.rawObject(path)
			return err
		},
	})
}

func (d decoder) timeouts(path string, timeouts *fanout.Timeouts) error {
	return d.object(path, map[string]member{
		"connect":     d.milliseconds(&timeouts.Connect, 1, maxWait),
		"first_token": d.milliseconds(&timeouts.FirstToken, 1, maxWait),
		"stall":       d.milliseconds(&timeouts.Stall, 1, maxWait),
		"total":       d.milliseconds(&timeouts.Total, 1, maxWait),
	})
}

func (d decoder) matching(into *string, form *regexp.Regexp) member {
	return func(path string) error {
		text, err := d.text(path)
		if err != nil {
			return err
		}
		if !form.MatchString(text) {
			return invalid(path, "Expected %s.", strings.Trim(form.String(), "^$"))
		}
		*into = text
		return nil
	}
}

func (d decoder) model(into *string) member {
	return func(path string) error {
		if err := d.matching(into, modelForm)(path); err != nil {
			return err
		}
		if utf8.RuneCountInString(*into) > maxModel {
			return invalid(path, "At most %d characters.", maxModel)
		}
		return nil
	}
}

func (d decoder) boolean(into *bool) member {
	return func(path string) (err error) {
		*into, err = d.truth(path)
		return err
	}
}

func (d decoder) milliseconds(into *time.Duration, from, to int64) member {
	return func(path string) error {
		n, err := d.whole(path, from, to)
		*into = time.Duration(n) * time.Millisecond
		return err
	}
}

func (d decoder) count(into **int64, from, to int64) member {
	return func(path string) error {
		n, err := d.whole(path, from, to)
		*into = &n
		return err
	}
}

func (d decoder) decimal(into **float64, valid func(float64) bool, message string) member {
	return func(path string) error {
		n, err := d.number(path)
		if err != nil {
			return err
		}
		if !valid(n) {
			return invalid(path, "%s", message)
		}
		*into = &n
		return nil
	}
}
