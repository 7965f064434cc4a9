package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"syncd/internal/sandbox"
)

// TestScript runs the command line as its users do: testdata/script.
func TestScript(t *testing.T) {
	sb, err := sandbox.New(sandbox.Demo(1))
	if err != nil {
		t.Fatal(err)
	}
	personal := sb.MintToken(sandbox.TokenSpec{Seller: sb.Worlds()[0].ID()})
	noChat := sb.MintToken(sandbox.TokenSpec{Seller: sb.Worlds()[0].ID(), Scopes: sandbox.ScopeFeedbacks})
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":      exits,
			"statefile":  makeStateFile,
			"refuses":    refuses,
			"needsState": needsState,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" { // no mode says anything to it
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("WB_TOKEN", personal)
			env.Setenv("WB_NO_CHAT", noChat)
			return os.WriteFile(filepath.Join(env.WorkDir, "wb.token"), []byte(personal), 0o600)
		},
	})
}

// exits is the script command `exits CODE COMMAND ARGS...`: the command must end with
// that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		code = strconv.Itoa(exit.ExitCode())
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}
