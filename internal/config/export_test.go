package config

import "reflect"

// ParseSize reads a size. No key that is supported yet holds one.
func ParseSize(s string) (int64, string) {
	var b size
	wrong := b.parse(s)
	return int64(b), wrong
}

// BadDefaults lists the keys of the document types whose default is no good value, and counts all defaults.
func BadDefaults() (bad []string, total int) {
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		if s, ok := reflect.New(t).Interface().(shaped); ok {
			elem, _ := s.elem()
			walk(elem)
			return
		}
		if t.Kind() != reflect.Struct || t.NumField() == 0 || t.Field(0).Tag == "" {
			return
		}
		for _, f := range fieldsOf(t) {
			field := t.Field(f.index).Type
			walk(field)
			if !f.hasDefault {
				continue
			}
			total++
			elem, _ := reflect.New(field).Interface().(shaped).elem()
			if wrong := reflect.New(elem).Interface().(value).parse(f.fallback); wrong != "" {
				bad = append(bad, f.key+": "+wrong)
			}
		}
	}
	walk(reflect.TypeFor[document]())
	return bad, total
}
