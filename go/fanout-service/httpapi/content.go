package httpapi

import (
	"strings"
	"unicode/utf8"

	fanout "rex/fanout-service"
)

func (d decoder) message() (message fanout.Message, err error) {
	err = d.object([]member{
		{"role", func() (err error) {
			message.Role, err = d.text()
			switch {
			case err != nil:
				return err
			case message.Role == "system", message.Role == "user", message.Role == "assistant":
				return nil
			}
			return invalid("", "Expected system, user or assistant.")
		}},
		{"content", func() error { return d.content(&message) }},
	}, "role", "content")
	return message, err
}

// content reads text, or a list of parts.
func (d decoder) content(message *fanout.Message) error {
	switch d.walk.Peek() {
	case '"':
		text, err := d.text()
		message.Content = text
		return err
	case '[':
		return d.list(maxParts, tooLarge, func() error {
			part, err := d.part()
			message.Parts = append(message.Parts, part)
			return err
		})
	}
	return invalid("", "Expected text or a list of parts.")
}

// part reads a part of a message: text; or an image by its media_type and data, or by its url.
// The type may come behind the other fields, so what goes together is judged at the end.
func (d decoder) part() (part fanout.Part, err error) {
	var kind string
	var text, media, data, url bool
	take := func(into *string, given *bool, valid func(string) bool, expected string) reader {
		return func() (err error) {
			*given = true
			if *into, err = d.text(); err == nil && !valid(*into) {
				err = invalid("", "%s", expected)
			}
			return err
		}
	}
	err = d.object([]member{
		{"type", take(&kind, new(bool), isPartType, "Expected text or image.")},
		{"text", take(&part.Text, &text, isAny, "")},
		{"media_type", take(&part.MediaType, &media, isImageType, "Expected image/png, image/jpeg, image/gif or image/webp.")},
		{"data", take(&part.Data, &data, isBase64, "Expected base64 with its padding, and not empty.")},
		{"url", take(&part.URL, &url, isImageURL, "Expected an http or https address of at most 2048 characters.")},
	}, "type")
	if err != nil {
		return part, err
	}
	image := kind == "image"
	for _, field := range []struct {
		name          string
		given, wanted bool
	}{
		{"text", text, !image},
		{"media_type", media, image && !url},
		{"data", data, image && !url},
		{"url", url, image && url},
	} {
		switch {
		case field.given && !field.wanted:
			return part, invalid(field.name, "Not a field of this part.")
		case field.wanted && !field.given:
			return part, invalid(field.name, "Required.")
		}
	}
	return part, nil
}

func isAny(string) bool { return true }

func isPartType(kind string) bool { return kind == "text" || kind == "image" }

func isImageType(media string) bool {
	switch media {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
		return true
	}
	return false
}

func isImageURL(url string) bool {
	return utf8.RuneCountInString(url) <= maxURL && urlForm.MatchString(url)
}

// isBase64 says whether data is standard base64 with its padding and without line breaks. It only
// looks: what an image holds is the provider's to judge.
func isBase64(data string) bool {
	if data == "" || len(data)%4 != 0 {
		return false
	}
	digits := strings.TrimSuffix(strings.TrimSuffix(data, "="), "=")
	for i := range len(digits) {
		switch c := digits[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}
