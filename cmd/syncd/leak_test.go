package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"syncd/internal/sandbox"
)

// TestUnsolicitedBytesStayOutOfTheLog: a receiver that sends a body with a 204 makes
// net/http print those bytes to the standard logger. They may echo a secret.
func TestUnsolicitedBytesStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					req.Body.Close()
					fmt.Fprintf(c, "HTTP/1.1 204 No Content\r\n\r\necho of %s", req.Header.Get("X-Api-Key"))
				}
			}()
		}
	}()
	raw, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(raw), w.receiver.url, "http://"+l.Addr().String(), 1)
	config = strings.Replace(config, "secret_file:", "headers: {X-Api-Key: hush-hush-hush}, secret_file:", 1)
	config = strings.Replace(config, "start: beginning", "start: now", 1)
	write(t, w.config, config)
	world := w.sb.Worlds()[0]
	syncd := func() string {
		cmd := exec.Command(os.Args[0], "once", "--config", w.config)
		cmd.Env = append(os.Environ(), "SYNCD_TEST_AS_SYNCD=1")
		var log bytes.Buffer
		cmd.Stderr = &log
		_ = cmd.Run() // a receiver like this may well leave something
		return log.String()
	}
	log := syncd()
	for i := range 20 {
		if _, err := world.AddQuestion(sandbox.QuestionSpec{Text: fmt.Sprint("Сколько весит ", i, "?")}); err != nil {
			t.Fatal(err)
		}
	}
	log += syncd()
	events, err := os.ReadFile(filepath.Join(w.dir, "events.ndjson"))
	if err != nil || bytes.Count(events, []byte("\n")) < 20 {
		t.Fatalf("nothing was delivered, so the test shows nothing: %v\n%s", err, log)
	}
	if strings.Contains(log, "hush") || strings.Contains(log, "Unsolicited") {
		t.Errorf("the log holds what the receiver sent:\n%s", log)
	}
}
