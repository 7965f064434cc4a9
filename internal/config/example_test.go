package config_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"syncd/internal/config"
)

// example prepares the secrets that the example configuration names, and a copy of it with the given text.
func example(t *testing.T, text string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"shop-a-token", "shop-a-chat-token", "market-key"} {
		write(t, filepath.Join(dir, name), "token\n")
	}
	write(t, filepath.Join(dir, "crm-secret"), signingSecret+"\n")
	write(t, filepath.Join(dir, "crm-ca.pem"), certificate(t))
	path := filepath.Join(dir, "syncd.yaml")
	write(t, path, text)
	return load(t, path, map[string]string{"CREDENTIALS_DIRECTORY": dir})
}

// TestExample holds that the example loads, that the settings it shows as off are valid and, but for those called examples, are
// the defaults, and that it mentions every key.
func TestExample(t *testing.T) {
	raw, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if !strings.HasPrefix(text, "# yaml-language-server: $schema=syncd.schema.json\n") {
		t.Error("the first line does not name the schema")
	}
	asIs := example(t, text)
	off := regexp.MustCompile(`(?m)^( *)#([^ ]|  )`)
	all := off.ReplaceAllString(text, "$1$2")
	for _, text := range []string{text, all} {
		if err := validate(t, editorSchema(t), []byte(text)); err != nil {
			t.Error(err)
		}
	}
	example(t, all)
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool {
		return strings.Contains(s, "# example") || strings.HasPrefix(s, "#  wildberries:") || strings.HasPrefix(s, "#    ")
	})
	on := example(t, off.ReplaceAllString(strings.Join(lines, "\n"), "$1$2"))
	for _, c := range []*config.Config{asIs, on} {
		if len(c.Warnings) > 0 {
			t.Errorf("warnings: %v", c.Warnings)
		}
		c.Files = nil
		for i := range c.Accounts {
			c.Accounts[i].Tokens = nil
		}
		c.Sinks[1].Webhook.Secrets = nil
	}
	if !reflect.DeepEqual(config.Plain(asIs), config.Plain(on)) {
		t.Errorf("what the example shows as defaults are not the defaults:\n%+v\n%+v", asIs, on)
	}

	schema, err := config.Schema(catalog())
	if err != nil {
		t.Fatal(err)
	}
	var root any
	if err := json.Unmarshal(schema, &root); err != nil {
		t.Fatal(err)
	}
	keys := supportedKeys(root)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !regexp.MustCompile(`\b` + key + "(:|`|  )").MatchString(text) {
			t.Errorf("the example does not mention %s", key)
		}
	}
	for i, beginning := range []string{`    #  `, `#      `} {
		for _, s := range catalog().Marketplaces[i].Streams {
			if !regexp.MustCompile(`(?m)^` + beginning + s.Name + `:`).MatchString(text) {
				t.Errorf("the example does not show the stream %s of %s", s.Name, catalog().Marketplaces[i].Name)
			}
		}
	}
	for _, key := range []string{"max_size", "web_config", "keep_records"} {
		if strings.Contains(text, key) {
			t.Errorf("the example advertises %s, which is not supported yet", key)
		}
	}
}
