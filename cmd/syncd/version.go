package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set by the linker: make build.
var release string

type versionInfo struct{ version, revision, goVersion string }

func version() versionInfo {
	v := versionInfo{version: release, goVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if ok {
		if v.version == "" {
			v.version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				v.revision = s.Value[:12]
			}
		}
	}
	if v.version == "" || v.version == "(devel)" {
		v.version = "dev"
	}
	return v
}

func userAgent() string { return "syncd/" + version().version }

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version()
			if v.revision != "" {
				v.version += " (" + v.revision + ")"
			}
			_, err := fmt.Fprintf(e.stdout, "syncd %s, %s, %s/%s\n", v.version, v.goVersion, runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
