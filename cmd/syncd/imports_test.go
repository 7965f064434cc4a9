package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowedImports is the picture in ARCHITECTURE.md: what each package may import
// of ours. Imports only point down it.
var allowedImports = map[string][]string{
	"cmd/syncd": {"clock", "config", "delivery", "event", "poller", "sandbox", "sandbox/yandexmarket", "sink", "sources", "sources/apiclient", "sources/wildberries", "sources/yandexmarket", "state", "trouble", "web"},

	"clock":                {},
	"config":               {},
	"delivery":             {"event", "grace", "sink", "state", "trouble"},
	"event":                {},
	"fingerprint":          {"event", "rawjson"},
	"grace":                {},
	"poller":               {"event", "fingerprint", "sources", "state", "trouble"},
	"rawjson":              {},
	"sandbox":              {"sandbox/kit"},
	"sandbox/kit":          {},
	"sandbox/yandexmarket": {"sandbox/kit"},
	"sink":                 {"event"},
	"sink/sinktest":        {"event", "sink"},
	"sources":              {},
	"sources/apiclient":    {"grace", "sources"},
	"sources/jsonlist":     {"rawjson"},
	"sources/sourcetest":   {"sources", "sources/apiclient"},
	"sources/listing":      {"rawjson", "sources", "sources/apiclient", "sources/jsonlist"},
	"sources/wildberries":  {"sources", "sources/apiclient", "sources/listing"},
	"sources/yandexmarket": {"sources", "sources/apiclient", "sources/listing"},
	"state":                {"event"},
	"trouble":              {},
	"web":                  {},
}

// homes is where each third-party module may be imported; prometheus types may
// appear in any constructor.
var homes = map[string][]string{
	"go.etcd.io/bbolt":       {"state"},
	"github.com/robfig/cron": {"poller"},
	"golang.org/x/time":      {"sources/apiclient"},
	"go.yaml.in/yaml":        {"config"},
	"github.com/lmittmann":   {"cmd/syncd"},
	"github.com/spf13":       {"cmd/syncd"},
	"golang.org/x/term":      {"cmd/syncd"},
	"github.com/schollz":     {"cmd/syncd"},
	"github.com/klauspost":   {"sink"},
	"golang.org/x/sync":      {"cmd/syncd", "poller"},
	"github.com/prometheus/client_golang/prometheus/promhttp": {"web"},
	"github.com/prometheus/client_model":                      {"cmd/syncd"},
}

// prometheusAnywhere need no home.
var prometheusAnywhere = []string{"github.com/prometheus/client_golang/prometheus", "github.com/prometheus/client_golang/prometheus/collectors"}

func TestImportsPointDown(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	d := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := short(p.ImportPath)
		allowed, ok := allowedImports[name]
		if !ok {
			t.Errorf("package %s is not in the picture: add it to allowedImports and to ARCHITECTURE.md, or put its code where it belongs", name)
			continue
		}
		seen++
		for _, i := range p.Imports {
			if s := short(i); s != i {
				if !slices.Contains(allowed, s) {
					t.Errorf("%s imports %s: not in the picture", name, s)
				}
			} else if strings.Contains(strings.Split(i, "/")[0], ".") && !slices.Contains(prometheusAnywhere, i) && !atHome(name, i) {
				t.Errorf("%s imports %s: its home is elsewhere", name, i)
			}
		}
	}
	if seen != len(allowedImports) {
		t.Errorf("the picture has %d packages, the program %d", len(allowedImports), seen)
	}
}

// short is a package of ours as the picture names it; others are left as they are.
func short(path string) string {
	if s, ok := strings.CutPrefix(path, "syncd/internal/"); ok {
		return s
	}
	return strings.TrimPrefix(path, "syncd/")
}

func atHome(name, path string) bool {
	for module, packages := range homes {
		if strings.HasPrefix(path, module) && slices.Contains(packages, name) {
			return true
		}
	}
	return false
}
