// Command syncd polls marketplaces for sellers and hands every new or changed
// item to their own systems. See README.md, and ARCHITECTURE.md for how.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"syncd/internal/config"
)

// Exit codes: contract §3.
const (
	exitFailure = 1 // a failure, or something is left
	exitUsage   = 2 // wrong usage or invalid configuration
)

func main() {
	// net/http prints what a server sends unasked to the standard logger, raw: an
	// echo of a token would be in the log (contract G9). Nothing else uses it.
	log.SetOutput(io.Discard)
	ballast := tuneGC(os.Getenv)
	code := run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	runtime.KeepAlive(ballast)
	os.Exit(code)
}

// tuneGC sets the garbage collector up, unless the environment does. It returns a
// ballast to keep: never touched, it takes no memory, but counts as a part of the heap
// that is in use.
//
// A page of 5,000 reviews is some 80 MB of memory for a moment, and a heap that may
// double after it would be beyond what a history may cost. So it may grow by half
// only. With the few megabytes that syncd mostly uses, that would make the collector
// run a hundred times a second under load; the ballast is what it grows from.
func tuneGC(getenv func(string) string) []byte {
	if getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(50)
	return make([]byte, 32<<20)
}

// usageError is a mistake in the command line.
type usageError struct{ error }

// errLeft says that a command did what it could and something is left; what,
// it has printed already.
var errLeft = errors.New("something is left")

// run is main with everything it touches handed in. ctx ends with the process;
// signals are the commands' own business.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	root := newRoot(&env{getenv: getenv, stdout: stdout, stderr: stderr})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errLeft):
		return exitFailure
	}
	if problems, ok := errors.AsType[*config.Errors](err); ok {
		fmt.Fprintln(stderr, problems)
		return exitUsage
	}
	fmt.Fprintf(stderr, "syncd: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "See '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailure
}

// env is the world as a command sees it.
type env struct {
	getenv         func(string) string
	stdout, stderr io.Writer
	configPath     string // --config
	server         string // --server
}

const defaultConfig = "/etc/syncd/syncd.yaml"

// readConfig reads the configuration that the command line or the environment names.
func (e *env) readConfig() (*config.Config, error) {
	return config.Load(config.Source{Path: e.configFile(), Getenv: e.getenv}, catalog())
}

func (e *env) configFile() string {
	return cmp.Or(e.configPath, e.getenv("SYNCD_CONFIG"), defaultConfig)
}

// loadConfig is readConfig for a command: it prints the warnings.
func (e *env) loadConfig() (*config.Config, error) {
	cfg, err := e.readConfig()
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintf(e.stderr, "warning: %s\n", w)
	}
	return cfg, nil
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "syncd",
		Short: "Polls marketplaces for sellers and delivers what is new",
		Long: `syncd polls Wildberries for chats, questions, reviews and return claims, strictly
within each seller account's request budget, and hands every new or changed item to
your own systems by webhook or file, as CloudEvents.

Try it without an account:   syncd demo
Run it for real:             syncd check && syncd run

The configuration is the file given by --config, else by $SYNCD_CONFIG, else
` + defaultConfig + `. The README begins one in a few lines; configs/syncd.yaml explains
every setting.

Exit codes: 0 success; 1 failure, or something is left; 2 wrong usage or invalid
configuration.`,
		Version:       version().version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newRun(e), newOnce(e), newCheck(e), newStatus(e), newPoll(e), newBackfill(e), newSinks(e), newReplay(e), newDeadLetter(e), newExport(e), newState(e), newDemo(e), newSandbox(e), newHealthcheck(e), newVersion(e))
	return root
}

// noArgs refuses arguments that a command does not take.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

func (e *env) addConfigFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&e.configPath, "config", "", "configuration `file` (default $SYNCD_CONFIG, then "+defaultConfig+")")
}
