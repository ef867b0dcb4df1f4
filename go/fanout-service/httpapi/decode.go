package httpapi

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	fanout "rex/fanout-service"
)

// The limits of the contract.
const (
	maxBody        = 16 << 20
	maxCalls       = 512
	maxMessages    = 1024
	maxWait        = 3_600_000 // ms, of a deadline or timeout
	maxCoalesce    = 1000      // ms
	maxModel       = 256
	maxTokens      = 1_000_000
	maxSeed        = 1<<53 - 1
	maxStops       = 4
	maxStop        = 256
	maxTemperature = 2
)

var (
	idForm       = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	providerForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
	modelForm    = regexp.MustCompile(`^[^\x00-\x20\x7f]+$`)
)

// decode reads the body of POST /fanout, as CONTRACT.md and request.schema.json say.
func decode(body []byte) (fanout.Request, error) {
	d := decoder{newFields(body)}
	request, err := d.request()
	if err == nil {
		err = d.end()
	}
	return request, err
}

type decoder struct{ fields }

func (d decoder) request() (fanout.Request, error) {
	request := fanout.Request{Coalesce: fanout.DefaultCoalesce}
	ids := map[string]bool{}
	err := d.object("", map[string]member{
		"v": func(path string) error {
			_, err := d.whole(path, 1, 1)
			return err
		},
		"id":          d.matching(&request.ID, idForm),
		"request_id":  d.matching(&request.RequestID, idForm),
		"deadline_ms": d.milliseconds(&request.Deadline, 1, maxWait),
		"coalesce_ms": d.milliseconds(&request.Coalesce, 0, maxCoalesce),
		"calls": func(path string) error {
			return d.list(path, maxCalls, tooLarge, func(path string) error {
				call, err := d.call(path)
				if err == nil && ids[call.ID] {
					err = invalid(path+".id", "Call ids are unique.")
				}
				ids[call.ID] = true
				request.Calls = append(request.Calls, call)
				return err
			})
		},
	}, "v", "id", "deadline_ms", "calls")
	return request, err
}

func (d decoder) call(path string) (fanout.Call, error) {
	call := fanout.Call{Timeouts: fanout.DefaultTimeouts}
	err := d.object(path, map[string]member{
		"id":       d.matching(&call.ID, idForm),
		"provider": d.matching(&call.Provider, providerForm),
		"model": func(path string) error {
			if err := d.matching(&call.Model, modelForm)(path); err != nil {
				return err
			}
			if utf8.RuneCountInString(call.Model) > maxModel {
				return invalid(path, "At most %d characters.", maxModel)
			}
			return nil
		},
		"messages": func(path string) error {
			return d.list(path, maxMessages, tooLarge, func(path string) error {
				message, err := d.message(path)
				call.Messages = append(call.Messages, message)
				return err
			})
		},
		"params":      func(path string) error { return d.params(path, &call.Params) },
		"timeouts_ms": func(path string) error { return d.timeouts(path, &call.Timeouts) },
	}, "id", "provider", "model", "messages")
	return call, err
}

func (d decoder) message(path string) (message fanout.Message, err error) {
	err = d.object(path, map[string]member{
		"role": func(path string) (err error) {
			message.Role, err = d.text(path)
			switch {
			case err != nil:
				return err
			case message.Role == "system", message.Role == "user", message.Role == "assistant":
				return nil
			}
			return invalid(path, "Expected system, user or assistant.")
		},
		"content": func(path string) (err error) {
			message.Content, err = d.text(path)
			return err
		},
	}, "role", "content")
	return message, err
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
