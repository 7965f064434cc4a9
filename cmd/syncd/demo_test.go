package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"syncd/internal/event"
)

// TestDemo ends the demo when it has shown something, and holds its screen against
// its file.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := &watchedWriter{pattern: regexp.MustCompile(`question\.created[^\n]*\n(.*\n)*.*chat_event\.created[^\n]*\n|chat_event\.created[^\n]*\n(.*\n)*.*question\.created[^\n]*\n`), found: cancel}
	var log bytes.Buffer
	if code := run(ctx, []string{"demo", "--dir", dir}, func(string) string { return "" }, out, &log); code != 0 {
		t.Fatalf("demo exits %d\n%s%s", code, out.b.String(), log.String())
	}
	text := out.b.String()
	if log.Len() > 0 {
		t.Errorf("the demo has something to complain about:\n%s", log.String())
	}
	raw, err := os.ReadFile(filepath.Join(dir, "events.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(string(raw), "\n")
	shown := len(regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  shop-[ab]  `).FindAllString(text, -1))
	// The two sinks stop at their own positions.
	if shown == 0 || lines == 0 {
		t.Errorf("%d events on the screen and %d in the file", shown, lines)
	}
	if !regexp.MustCompile(`chat +\d+ +0 +0 `).MatchString(text) || !strings.Contains(text, "VIOLATIONS") {
		t.Errorf("the summary does not show budgets without violations:\n%s", text)
	}
	var again bytes.Buffer
	if code := run(context.Background(), []string{"demo", "--dir", dir}, func(string) string { return "" }, &again, &again); code != exitUsage {
		t.Errorf("a second demo in the same directory exits %d:\n%s", code, again.String())
	}
}

// watchedWriter calls found once what was written matches. Writes are serial: the
// demo's screen is the only writer while it runs.
type watchedWriter struct {
	b       bytes.Buffer
	pattern *regexp.Regexp
	found   func()
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	n, err := w.b.Write(p)
	if w.pattern.Match(w.b.Bytes()) {
		w.found()
	}
	return n, err
}

func TestScreenShowsWhatAPersonWantsToRead(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 2, 2, 20, 46, 20, 0, time.UTC)
	for name, row := range map[string]struct{ typ, item, want string }{
		"message":       {"wildberries.chat_event.created", `{"sender":"client","clientName":"Анна","message":{"text":"Где\nзаказ?"}}`, "Анна: Где заказ?"},
		"no name":       {"wildberries.chat_event.created", `{"sender":"seller","message":{"text":"Едет"}}`, "seller: Едет"},
		"picture":       {"wildberries.chat_event.created", `{"sender":"client","message":{"attachments":{"images":[]}}}`, "client: (attachment)"},
		"no message":    {"wildberries.chat_event.created", `{"sender":"wb"}`, "wb:"},
		"question":      {"wildberries.question.created", `{"text":"Какой размер?","answer":null}`, "Какой размер?"},
		"answer":        {"wildberries.question.updated", `{"text":"Какой размер?","answer":{"text":"46"}}`, "Какой размер? → 46"},
		"another form":  {"wildberries.question.created", `{"text":{}}`, "(an item of another form)"},
		"market chat":   {"yandex_market.chat.updated", `{"chatId":9007199254740993,"status":"FINISHED","context":{"customer":{"name":"Пётр"}}}`, "Пётр: chat 9007199254740993 FINISHED"},
		"sticker":       {"yandex_market.chat_message.created", `{"messageId":1,"sender":"CUSTOMER"}`, "CUSTOMER:"},
		"market file":   {"yandex_market.chat_message.created", `{"sender":"PARTNER","payload":[{"name":"a.jpg"}]}`, "PARTNER: (attachment)"},
		"market review": {"yandex_market.goods_feedback.created", `{"statistics":{"rating":4},"description":{"comment":"Хорошо"}}`, "★★★★ Хорошо"},
		"market return": {"yandex_market.return.created", `{"id":1,"orderId":7,"returnType":"UNREDEEMED","shipmentStatus":"CREATED"}`, "order 7: UNREDEEMED CREATED"},
		"terminal code": {"wildberries.question.created", `{"text":"a\u001b[2Jb"}`, "a [2Jb"},
	} {
		t.Run(name, func(t *testing.T) {
			e := event.Event{ID: "shop-a/s/1", Type: row.typ, Time: at, Recorded: at, Item: []byte(row.item)}
			line := e.AppendJSON(nil)
			h, err := event.ParseHeader(line)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := (&screen{w: &out}).Deliver(context.Background(), []event.Logged{{Header: h, JSON: line}}); err != nil {
				t.Fatal(err)
			}
			_, kind, _ := strings.Cut(row.typ, ".")
			if got := strings.TrimSpace(out.String()); !strings.HasSuffix(got, fmt.Sprintf("%-30s %s", kind, row.want)) {
				t.Errorf("shown as %q, want %q at the end", got, row.want)
			}
		})
	}
}
