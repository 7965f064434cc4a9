package config_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"syncd/internal/config"
)

const (
	exampleFile = "../../configs/syncd.yaml"
	schemaFile  = "../../configs/syncd.schema.json"
)

// TestSchemaFile holds the committed schema to the code. Rewrite it with: go test ./internal/config -update
func TestSchemaFile(t *testing.T) {
	want, err := config.Schema(catalog())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run go test ./internal/config -update", schemaFile)
	}
}

func TestSchemaDescribesEveryKey(t *testing.T) {
	text, err := config.Schema(catalog())
	if err != nil {
		t.Fatal(err)
	}
	var root any
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	keys := supportedKeys(root)
	for key, descriptions := range keys {
		for _, d := range descriptions {
			if len(d) < 15 || !strings.HasSuffix(d, ".") {
				t.Errorf("the description of %s is not a sentence: %q", key, d)
			}
		}
	}
	for _, later := range []string{"max_size", "web_config", "keep_records"} {
		if keys[later] != nil {
			t.Errorf("the schema offers %s, which is not supported yet", later)
		}
	}
}

// TestSchemaOfStreams holds that an editor offers each stream the keys that Load takes for it, with its own defaults.
func TestSchemaOfStreams(t *testing.T) {
	text, err := config.Schema(catalog())
	if err != nil {
		t.Fatal(err)
	}
	type property struct {
		Default    any
		Properties map[string]property
	}
	var root struct {
		Defs map[string]property `json:"$defs"`
	}
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	streams := root.Defs["wildberries_account"].Properties["streams"].Properties
	for _, s := range catalog().Marketplaces[0].Streams {
		want := []string{"enabled", "schedule"}
		if s.Overlap > 0 {
			want = append(want, "overlap")
		}
		if s.Sweeps {
			want = append(want, "sweep", "ignore")
		}
		slices.Sort(want)
		keys := streams[s.Name].Properties
		if got := slices.Sorted(maps.Keys(keys)); !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", s.Name, got, want)
		}
		if keys["enabled"].Default != !s.Off || keys["schedule"].Default != s.Schedule {
			t.Errorf("%s: got %+v", s.Name, keys)
		}
		sweep := keys["sweep"].Properties
		if s.Sweeps && (sweep["every"].Default != "15m" || sweep["full"].Default != "24h" || sweep["window"].Default != "60d") {
			t.Errorf("%s: got %+v", s.Name, sweep)
		}
	}
}

// supportedKeys gives the keys that a schema knows, besides those that the catalogue names, with their descriptions.
func supportedKeys(schema any) map[string][]string {
	keys := map[string][]string{}
	var walk func(any)
	walk = func(s any) {
		switch s := s.(type) {
		case []any:
			for _, item := range s {
				walk(item)
			}
		case map[string]any:
			properties, _ := s["properties"].(map[string]any)
			for key, p := range properties {
				property, _ := p.(map[string]any)
				if d, ok := property["description"].(string); ok {
					keys[key] = append(keys[key], d)
				}
			}
			for _, item := range s {
				walk(item)
			}
		}
	}
	walk(schema)
	return keys
}

func editorSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := config.Schema(catalog())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("syncd.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("syncd.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate checks a YAML text as an editor does. What is no YAML passes: a schema does not see it.
func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || doc.Kind == 0 {
		return nil
	}
	return s.Validate(asJSON(t, doc.Content[0]))
}

// asJSON gives the JSON value that an editor takes a node for: unlike the YAML library it knows no dates.
func asJSON(t *testing.T, n *yaml.Node) any {
	t.Helper()
	switch n.Kind {
	case yaml.AliasNode:
		return asJSON(t, n.Alias)
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, asJSON(t, item))
		}
		return list
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			if key := n.Content[i]; key.Tag == "!!merge" {
				for k, v := range asJSON(t, n.Content[i+1]).(map[string]any) {
					m[k] = v
				}
			} else if key.Kind == yaml.ScalarNode {
				m[key.Value] = asJSON(t, n.Content[i+1])
			}
		}
		return m
	}
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		var v any
		if err := n.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	return n.Value
}
