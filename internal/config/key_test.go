package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"syncd/internal/config"
)

// TestKeys changes every setting of accounts and sinks, one at a time, wherever it stands, and holds that each changes the key, each
// to another one, and that the same settings always have the same key.
func TestKeys(t *testing.T) {
	dir := fullExample(t)
	full := func() *config.Config {
		return load(t, filepath.Join(dir, "etc/syncd.yaml"), map[string]string{"WB_TOKEN": "own", "CHAT_TOKEN": "chat"})
	}
	c, again := full(), full()
	changes, seen := 0, map[string]string{}
	check := func(name string, v reflect.Value, key func() string) {
		original := key()
		seen[original] = name
		eachChange(t, v, name, func(what string) {
			changes++
			k := key()
			if seen[k] != "" {
				t.Errorf("%s gives the key of %s", what, seen[k])
			}
			seen[k] = what
			for _, secret := range []string{"another", "own", "chat", "shared", signingSecret} {
				if strings.Contains(k, secret) {
					t.Errorf("the key shows a secret: %s", k)
				}
			}
		})
		if key() != original {
			t.Errorf("%s: the key is not always the same", name)
		}
	}
	for i := range c.Accounts {
		a := &c.Accounts[i]
		if a.Key() != again.Accounts[i].Key() {
			t.Errorf("account %s: two keys", a.Name)
		}
		check(a.Name, reflect.ValueOf(a).Elem(), func() string { return a.Key() })
	}
	for i := range c.Sinks {
		s := &c.Sinks[i]
		if s.Key() != again.Sinks[i].Key() {
			t.Errorf("sink %s: two keys", s.Name)
		}
		check(s.Name, reflect.ValueOf(s).Elem(), func() string { return s.Key() })
	}
	if changes < 200 {
		t.Errorf("only %d changes were tried", changes)
	}
}

// eachChange changes everything below v, one thing at a time, has it looked at, and puts it back.
func eachChange(t *testing.T, v reflect.Value, path string, look func(what string)) {
	t.Helper()
	try := func(changed reflect.Value) {
		old := reflect.New(v.Type()).Elem()
		old.Set(v)
		v.Set(changed)
		look(path)
		v.Set(old)
	}
	switch x := v.Interface().(type) {
	case config.Secret:
		try(reflect.ValueOf(secretFrom(t, x.Source(), "another")))
		try(reflect.ValueOf(secretFrom(t, "env ELSEWHERE", x.Reveal())))
		return
	case config.Glob:
		if err := x.UnmarshalText([]byte(x.String() + "?")); err != nil {
			t.Fatal(err)
		}
		try(reflect.ValueOf(x))
		return
	case time.Time:
		try(reflect.ValueOf(x.AddDate(1, 0, 0)))
		return
	case []byte:
		try(reflect.ValueOf(append([]byte("\n"), x...)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			eachChange(t, v.Field(i), path+"."+v.Type().Field(i).Name, look)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			eachChange(t, v.Elem(), path, look)
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachChange(t, v.Index(i), fmt.Sprintf("%s[%d]", path, i), look)
		}
		try(reflect.Append(v.Slice3(0, v.Len(), v.Len()), reflect.New(v.Type().Elem()).Elem()))
	case reflect.Map:
		for _, k := range v.MapKeys() {
			value := reflect.New(v.Type().Elem()).Elem()
			old := v.MapIndex(k)
			value.Set(old)
			eachChange(t, value, fmt.Sprintf("%s[%s]", path, k), func(what string) {
				v.SetMapIndex(k, value)
				look(what)
				v.SetMapIndex(k, old)
			})
		}
	case reflect.String:
		try(reflect.ValueOf(v.String() + "x").Convert(v.Type()))
	case reflect.Bool:
		try(reflect.ValueOf(!v.Bool()))
	case reflect.Int, reflect.Int64:
		try(reflect.ValueOf(v.Int() + 1).Convert(v.Type()))
	case reflect.Float64:
		try(reflect.ValueOf(v.Float() + 0.25))
	default:
		t.Fatalf("%s is a %s, which this test does not know", path, v.Kind())
	}
}

// secretFrom is a secret that a source such as "env WB_TOKEN" holds, for as long as it is read.
func secretFrom(t *testing.T, source, text string) config.Secret {
	t.Helper()
	kind, name, _ := strings.Cut(source, " ")
	if kind == "file" {
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, name, text)
		defer write(t, name, string(old))
	}
	path := filepath.Join(t.TempDir(), "syncd.yaml")
	write(t, path, "accounts: [{name: a, marketplace: wildberries, token_"+kind+": "+name+"}]\n")
	s := load(t, path, map[string]string{name: text}).Accounts[0].Tokens["chat"]
	if s.Source() != source || s.Reveal() != text {
		t.Fatalf("got a secret from %s, want it from %s", s.Source(), source)
	}
	return s
}

// TestPatterns holds that a selection comes back from its JSON, that equal ones have equal JSON, and that no malformed pattern gets in.
func TestPatterns(t *testing.T) {
	c, err := loadText(t, `accounts: [{name: shop-a, marketplace: wildberries, token_env: WB_TOKEN}]
sinks:
  - {name: all, type: stdout}
  - {name: empty, type: stdout, select: {}}
  - {name: some, type: stdout, select: {accounts: ["shop-[ab]"], types: ["wildberries.*.created", "*.question.update?"]}}
  - {name: accounts, type: stdout, select: {accounts: [shop-a]}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Sinks {
		got, err := config.ParseSelect(s.Select.Patterns())
		if err != nil || !reflect.DeepEqual(got, s.Select) {
			t.Errorf("%s: got %+v, %v from %s", s.Name, got, err, s.Select.Patterns())
		}
	}
	if a, b := string(c.Sinks[0].Select.Patterns()), string(c.Sinks[1].Select.Patterns()); a != b {
		t.Errorf("%s and %s", a, b)
	}
	if s, err := config.ParseSelect(nil); err != nil || !s.Match("any", "thing") {
		t.Errorf("nothing gives %+v, %v", s, err)
	}
	for _, bad := range []string{`{"accounts":["[a"]}`, `{"types":[""]}`, `{"types":[1]}`, `{"stores":["a"]}`, `[]`, `{`} {
		if s, err := config.ParseSelect([]byte(bad)); err == nil || !reflect.DeepEqual(s, config.Select{}) {
			t.Errorf("%s gives %+v, %v", bad, s, err)
		}
	}
}
