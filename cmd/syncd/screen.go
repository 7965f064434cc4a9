package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"syncd/internal/event"
	"syncd/internal/sink"
)

// screen is the demo's sink: each event as one readable line.
type screen struct {
	w     io.Writer
	color bool
}

var _ sink.Sink = (*screen)(nil)

func (s *screen) Close() error { return nil }

func (s *screen) Deliver(_ context.Context, events []event.Logged) error {
	var b strings.Builder
	for i := range events {
		s.line(&b, &events[i])
	}
	_, err := io.WriteString(s.w, b.String())
	return err
}

func (s *screen) line(b *strings.Builder, e *event.Logged) {
	_, kind, _ := strings.Cut(e.Type, ".")
	paint, reset := "", ""
	if s.color {
		reset = "\x1b[0m"
		switch {
		case e.Backfill:
			paint = "\x1b[2m"
		case strings.HasSuffix(kind, ".updated"):
			paint = "\x1b[33m"
		default:
			paint = "\x1b[32m"
		}
	}
	when, text := describe(kind, e.JSON)
	note := ""
	if e.Backfill {
		note = " (history)"
	}
	fmt.Fprintf(b, "%s  %-8s %s%-30s%s %s%s\n", when, e.Account, paint, kind, reset, text, note)
}

// item is what a marketplace sent.
type item map[string]any

// at is the text or the number at a path; empty: there is none.
func (it item) at(path ...string) string {
	var v any = map[string]any(it)
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// named puts who says something before it.
func named(who, text string) string { return strings.TrimPrefix(who+": "+text, ": ") }

// stars shows a rating.
func stars(rating string) string {
	n, _ := strconv.Atoi(rating)
	return strings.Repeat("★", min(max(n, 0), 5))
}

// summaries say what a person would want to read of an item, by its kind.
var summaries = map[string]func(it item) string{
	"chat_event": func(it item) string {
		text := it.at("message", "text")
		if message, _ := it["message"].(map[string]any); text == "" && message["attachments"] != nil {
			text = "(attachment)"
		}
		return named(cmp.Or(it.at("clientName"), it.at("sender")), text)
	},
	"question": func(it item) string { return withAnswer(it.at("text"), it) },
	"feedback": func(it item) string { return withAnswer(stars(it.at("productValuation"))+" "+it.at("text"), it) },
	"claim":    func(it item) string { return it.at("user_comment") },
	"feedback_pin": func(it item) string {
		return "review " + it.at("feedbackId") + " " + it.at("state")
	},
	"chat": func(it item) string { // of both marketplaces
		if status := it.at("status"); status != "" {
			return named(it.at("context", "customer", "name"), "chat "+it.at("chatId")+" "+status)
		}
		return named(it.at("clientName"), it.at("lastMessage", "text"))
	},
	"chat_message": func(it item) string {
		text := it.at("message")
		if text == "" && it["payload"] != nil {
			text = "(attachment)"
		}
		return named(it.at("sender"), text)
	},
	"goods_feedback": func(it item) string {
		d := func(name string) string { return it.at("description", name) }
		return stars(it.at("statistics", "rating")) + " " + strings.Join([]string{d("advantages"), d("disadvantages"), d("comment")}, " ")
	},
	"goods_feedback_comment": func(it item) string { return named(it.at("author", "name"), it.at("text")) },
	"goods_question":         func(it item) string { return it.at("text") },
	"goods_answer":           func(it item) string { return named(it.at("author", "name"), it.at("text")) },
	"return": func(it item) string {
		return "order " + it.at("orderId") + ": " + it.at("returnType") + " " + cmp.Or(it.at("refundStatus"), it.at("shipmentStatus"))
	},
}

// withAnswer adds the seller's answer to a text.
func withAnswer(text string, it item) string {
	if answer := it.at("answer", "text"); answer != "" {
		text += " → " + answer
	}
	return text
}

// describe finds when an event happened and what a person would want to read of
// it. kind is its type without the marketplace.
func describe(kind string, line []byte) (when, text string) {
	var e struct {
		Time time.Time `json:"time"`
		Data struct {
			Item item `json:"item"`
		} `json:"data"`
	}
	d := json.NewDecoder(strings.NewReader(string(line)))
	d.UseNumber() // ids are longer than a float is exact
	if err := d.Decode(&e); err != nil {
		return "--:--:--", "(an item of another form)"
	}
	kind, _, _ = strings.Cut(kind, ".")
	if summary := summaries[kind]; summary != nil {
		text = summary(e.Data.Item)
	}
	if text = printable(text, 90); text == "" {
		text = "(an item of another form)"
	}
	return e.Time.Local().Format(time.TimeOnly), text
}

// printable makes one line of a stranger's text, of at most so many characters: none of
// it may reach a terminal as a control sequence.
func printable(text string, most int) string {
	var b strings.Builder
	n, space := 0, false
	for _, r := range text {
		if !unicode.IsPrint(r) || unicode.IsSpace(r) {
			space = n > 0
			continue
		}
		if n += 1; space {
			n++
		}
		if n > most {
			return b.String() + "…"
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
