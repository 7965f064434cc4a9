package sinktest

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
)

// AssertNoSecret checks that err shows none of secrets: not in its text, in any
// way of printing it, nor in what it wraps.
func AssertNoSecret(t testing.TB, err error, secrets ...string) {
	t.Helper()
	if err == nil {
		return
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%q"} {
		text := fmt.Sprintf(format, err)
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s leaks %q", text, secret)
			}
		}
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		AssertNoSecret(t, err.Unwrap(), secrets...)
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			AssertNoSecret(t, err, secrets...)
		}
	}
}

// ofSink finds a goroutine that belongs to a sink: one in its code, or one of a
// connection that it made.
var ofSink = regexp.MustCompile(`syncd/internal/sink\.|net/http\.\(\*(persistConn|Transport)\)`)

// assertNothingRuns checks that nothing of a sink is left in this bubble.
func assertNothingRuns(t *testing.T) {
	t.Helper()
	synctest.Wait()
	buf := make([]byte, 1<<20)
	stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
	bubble := regexp.MustCompile(`synctest bubble \d+\b`).FindString(stacks[0]) // ours
	for _, stack := range stacks[1:] {
		head, _, _ := strings.Cut(stack, "\n")
		if regexp.MustCompile(bubble+`\b`).MatchString(head) && ofSink.MatchString(stack) {
			t.Errorf("after Close there is still %s", stack)
		}
	}
}
