package sinktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"syncd/internal/event"
)

// Events returns n events with the sequences 0 to n-1. They are of different
// lengths, and their items hold what is awkward to send: escapes, other
// alphabets, numbers that no float can hold.
func Events(n int) []event.Logged {
	events := make([]event.Logged, n)
	for i := range events {
		item := fmt.Sprintf(`{"id":%d,"price":1.50e+02,"sum":12345678901234567890.10,"text":"Добрый день\n\"<&>\u2028\\ %d 😀","pad":%q}`,
			i, i, strings.Repeat("x", i*i%300))
		events[i] = Event(i, item)
	}
	return events
}

// Event returns an event with the given sequence about the given item.
func Event(sequence int, item string) event.Logged {
	at := time.Date(2026, 2, 2, 20, 46, 20, 0, time.UTC).Add(time.Duration(sequence) * time.Second)
	chat := fmt.Sprintf("1:%d", sequence%3)
	e := event.Event{
		ID:           event.ItemEventID("shop-a", "chat_events", event.Path(chat, fmt.Sprint("e", sequence))),
		Source:       event.Source("wildberries", "shop-a", "chat_events"),
		Type:         "wildberries.chat_event." + event.Created,
		Subject:      "chat/" + event.Path(chat),
		Time:         at,
		Recorded:     at.Add(1234 * time.Millisecond),
		Sequence:     uint64(sequence),
		PartitionKey: event.PartitionKey("shop-a", "chat/"+event.Path(chat)),
		Item:         json.RawMessage(item),
	}
	line := e.AppendJSON(nil)
	h, err := event.ParseHeader(line)
	if err != nil {
		panic(err)
	}
	return event.Logged{Header: h, JSON: line}
}

// Lines yields the lines of events, as delivery hands them to Resume. A line is
// overwritten when the next is asked for, like memory that is used again.
func Lines(events []event.Logged) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var line []byte
		for i := range events {
			clear(line)
			line = append(line[:0], events[i].JSON...)
			if !yield(line, nil) {
				return
			}
		}
	}
}

func clone(events []event.Logged) []event.Logged {
	events = slices.Clone(events)
	for i := range events {
		events[i].JSON = bytes.Clone(events[i].JSON)
	}
	return events
}
