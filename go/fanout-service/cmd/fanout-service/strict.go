package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// strict says which field of a JSON value a decoder into type t would take for another: encoding/json
// matches names whatever their case, and of a field given twice it keeps the last. at is where the
// value stands, "" for the whole.
func strict(decoder *json.Decoder, t reflect.Type, at string) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch token {
	case json.Delim('{'):
		return strictObject(decoder, t, at)
	case json.Delim('['):
		item := t
		if t.Kind() == reflect.Slice {
			item = t.Elem()
		}
		for i := 0; decoder.More(); i++ {
			if err := strict(decoder, item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		_, err = decoder.Token()
	}
	return err
}

func strictObject(decoder *json.Decoder, t reflect.Type, at string) error {
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		within := strings.TrimPrefix(at+"."+name, ".")
		if seen[name] {
			return fmt.Errorf("%s is there twice", within)
		}
		seen[name] = true
		field, known := fieldOf(t, name)
		if !known {
			return fmt.Errorf("unknown field %q in %s", name, within)
		}
		if err := strict(decoder, field, within); err != nil {
			return err
		}
	}
	_, err := decoder.Token()
	return err
}

// fieldOf is the type of the field that a struct has under exactly this name.
func fieldOf(t reflect.Type, name string) (reflect.Type, bool) {
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			if field := t.Field(i); field.Tag.Get("json") == name {
				return field.Type, true
			}
		}
		return nil, false
	}
	return t, true // an object where none belongs: the decoder says so
}
