package config

import "reflect"

// Plain is a configuration without what it keeps to read its secret files again, so that two can be compared.
func Plain(c *Config) *Config {
	plain := *c
	plain.secrets = nil
	return &plain
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
