package config

import (
	"net"

	"go.yaml.in/yaml/v3"
)

// Listen is server.listen of a main file which cannot be used as a whole, for commands that ask the daemon: that may well
// run on what the file held before. It is false where the file does not say it, or not in a way that can be read.
func Listen(path string) (string, bool) {
	text, wrong := readFile(path, false)
	if wrong != "" {
		return "", false
	}
	var doc struct {
		Server struct {
			Listen *string `yaml:"listen"`
		} `yaml:"server"`
	}
	if yaml.Unmarshal(text, &doc) != nil || doc.Server.Listen == nil {
		return "", false
	}
	if _, _, err := net.SplitHostPort(*doc.Server.Listen); err != nil {
		return "", false
	}
	return *doc.Server.Listen, true
}
