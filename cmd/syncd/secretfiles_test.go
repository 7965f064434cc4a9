package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestSecretFiles: a token that was refused and a webhook's secret are replaced in
// their files, and used without anybody asking; what else was edited is not. A file
// that holds nonsense is told once, and what was there before goes on.
func TestSecretFiles(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	hook := newRotated(t, e2eSecret)
	write(t, filepath.Join(r.dir, "crm.secret"), e2eSecret)
	r.token("a.token", 0, time.Now().Add(-time.Hour))
	r.sinks["crm"] = fmt.Sprintf("type: webhook, url: %q, secret_file: crm.secret, from: beginning, retry: {initial: 100ms, max: 200ms}", hook.url)
	r.run()
	blocked := func() bool {
		s := r.app.poller.Status()
		return len(s) == 1 && !s[0].Blocked.IsZero()
	}
	r.await("the token is refused", blocked)
	r.accounts["shop-c"] = "token_file: a.token, " + onlyQuestions
	r.write() // and nobody asks for a reload
	r.token("a.token", 0, time.Time{})
	r.has("archive.ndjson", "shop-a/questions", 20)
	r.await("the webhook has all", func() bool { return hook.taken() == 20 })
	if r.open("shop-c").source != nil {
		t.Error("the watcher of secret files has taken over another change")
	}

	const second = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	r.put("crm.secret", "not a secret")
	const complaint = "a secret file cannot be used: its account or sink goes on"
	r.await("the complaint", func() bool { return strings.Contains(r.log.String(), complaint) })
	taken := strings.Count(r.log.String(), "of=\"[account shop-a]\"")
	r.token("a.token", 0, time.Now().Add(24*time.Hour)) // which does not wait for the other
	r.await("the new token beside it", func() bool { return strings.Count(r.log.String(), "of=\"[account shop-a]\"") > taken })
	r.ask(0)
	r.await("the old secret goes on", func() bool { return hook.taken() == 21 })
	hook.rotate(t, second)
	r.put("crm.secret", second)
	r.ask(0)
	r.await("the new secret is used", func() bool { return hook.taken() == 22 })
	if n := strings.Count(r.log.String(), complaint); n != 1 {
		t.Errorf("the complaint came %d times", n)
	}
	r.end()
	for _, secret := range []string{e2eSecret, second, "not a secret"} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// TestNotInForce: while what a secret file holds, or the configuration of the last reload,
// is not in force, one metric and one line of the status say so; what was mended is gone
// from both.
func TestNotInForce(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	write(t, filepath.Join(r.dir, "crm.secret"), e2eSecret)
	r.sinks["crm"] = `type: webhook, url: "http://127.0.0.1:1", secret_file: crm.secret`
	r.run()
	told := func() []string {
		s := r.app.status().(statusAnswer)
		var out bytes.Buffer
		if err := s.print(&out, time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, note := range s.Notes {
			if strings.Contains(note, "\n") || !strings.Contains(out.String(), "\n"+note+"\n") {
				t.Errorf("%q is not a line of the status", note)
			}
		}
		if !s.Ready {
			t.Error("syncd is not ready, though it goes on")
		}
		return s.Notes
	}
	says := func(what string, metric float64, notes ...string) {
		t.Helper()
		r.await(what, func() bool {
			got := told()
			ok := len(got) == len(notes) && testutil.ToFloat64(r.app.reloaded) == metric
			for i := range min(len(got), len(notes)) {
				ok = ok && strings.Contains(got[i], notes[i])
			}
			return ok
		})
	}
	says("all is well", 1)
	for _, row := range []struct{ file, content, note string }{
		{"a.token", "garbage", "a.token holds no usable token"},
		{"a.token", "", "a.token is empty"},
		{"crm.secret", "", "crm.secret is empty"},
	} {
		whole, err := os.ReadFile(filepath.Join(r.dir, row.file))
		if err != nil {
			t.Fatal(err)
		}
		r.put(row.file, row.content)
		says(row.note, 0, row.note)
		r.put(row.file, string(whole))
		says(row.file+" is mended", 1)
	}
	token, err := os.ReadFile(filepath.Join(r.dir, "a.token"))
	if err != nil {
		t.Fatal(err)
	}
	r.put("a.token", "")
	r.put("crm.secret", "")
	says("two files", 0, "a.token is empty, expected a secret (and 1 other problem, which the log has)")
	if err := r.app.reload(t.Context()); err == nil {
		t.Fatal("a reload with them is done")
	}
	says("two files and a reload", 0, "the last reload was refused", "may not start")
	r.put("a.token", string(token))
	r.put("crm.secret", e2eSecret)
	says("the reload is still to be made", 0, "the last reload was refused")
	r.reload()
	says("it is made", 1)
	r.put("crm.secret", "")
	says("again", 0, "crm.secret is empty")
	r.sinks["crm"] = strings.Replace(r.sinks["crm"], "secret_file: crm.secret", "unsigned: true", 1)
	r.reload()
	if got := testutil.ToFloat64(r.app.reloaded); got != 1 {
		t.Errorf("after a reload that needs the file no more the metric is %v", got)
	}
	says("the file is not needed any more", 1)
}
