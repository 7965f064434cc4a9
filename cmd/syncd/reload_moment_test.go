package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"syncd/internal/config"
)

// TestReloadAtTheEnd: a reload that the end of syncd overtakes is no trouble, but a
// configuration that the next start could not use is told.
func TestReloadAtTheEnd(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]bool{"valid": false, "invalid": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReloader(t)
			r.run()
			r.has("archive.ndjson", "shop-a/questions", 20)
			r.accounts["shop-b"] = "token_file: b.token, " + onlyQuestions
			if wrong {
				r.sinks["archive"] = "type: pipe"
			}
			r.write()
			load, ended := r.app.load, make(chan struct{})
			r.app.load = func() (*config.Config, error) {
				go func() {
					defer close(ended)
					r.end()
				}()
				<-r.app.serving.Done()
				return load()
			}
			err := r.app.reload(t.Context())
			<-ended
			if told := strings.Contains(r.log.String(), "level=ERROR"); err == nil || told != wrong || errors.Is(err, errOver) == wrong {
				t.Errorf("err %v, an error in the log: %v", err, told)
			}
		})
	}
}

// TestHangupAtTheStart: a SIGHUP that comes before syncd is up does not end it. It waits
// for its configuration, a pipe.
func TestHangupAtTheStart(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	r.write()
	raw, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(r.path), syscall.Mkfifo(r.path, 0o600)); err != nil {
		t.Fatal(err)
	}
	p := start(t, r.path, "run")
	var pipe *os.File
	r.await("it reads its configuration", func() bool {
		pipe, err = os.OpenFile(r.path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil
	})
	r.put("syncd.yaml", string(raw)) // for the reload
	err = p.cmd.Process.Signal(syscall.SIGHUP)
	_, writeErr := pipe.Write(raw)
	if err := errors.Join(err, writeErr, pipe.Close()); err != nil {
		t.Fatal(err)
	}
	r.has("archive.ndjson", "shop-a/questions", 20)
	p.stop()
}
