package event_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"

	"syncd/internal/event"
)

// updated is the event that the contract shows.
func updated() event.Event {
	const account, stream, item = "shop-a", "questions", "2ncBtX4B9I0UHoornoqG"
	return event.Event{
		ID:           event.VersionEventID(account, stream, item, 2, event.Fingerprint{0x8f, 0x14, 0xe4, 0x5f, 0xce, 0xea, 0x16, 0x7a}),
		Source:       event.Source("wildberries", account, stream),
		Type:         "wildberries.question." + event.Updated,
		Subject:      "question/" + item,
		Time:         time.Date(2026, 2, 2, 23, 46, 20, 0, time.FixedZone("MSK", 3*60*60)),
		Recorded:     time.Date(2026, 2, 2, 20, 46, 31, 123_456_789, time.UTC),
		Sequence:     1042,
		PartitionKey: event.PartitionKey(account, "question/"+item),
		Item:         json.RawMessage(`{"b":1.50,"a":"\u0041<&>"}`),
		Previous:     json.RawMessage(`{"b":1e2}`),
	}
}

const updatedLine = `{"specversion":"1.0","id":"shop-a/questions/2ncBtX4B9I0UHoornoqG/2-8f14e45fceea167a",` +
	`"source":"syncd://wildberries/shop-a/questions","type":"wildberries.question.updated",` +
	`"subject":"question/2ncBtX4B9I0UHoornoqG","time":"2026-02-02T20:46:20Z","recordedtime":"2026-02-02T20:46:31.123Z",` +
	`"sequence":"00000000000000001042","partitionkey":"shop-a/question/2ncBtX4B9I0UHoornoqG",` +
	`"datacontenttype":"application/json","data":{"item":{"b":1.50,"a":"\u0041<&>"},"previous":{"b":1e2}}}`

func TestAppendJSON(t *testing.T) {
	e := updated()
	if got := string(e.AppendJSON([]byte("before "))); got != "before "+updatedLine {
		t.Errorf("an update is\n%s\nwant\n%s", got, updatedLine)
	}
	e.Previous = nil
	e.Backfill = true
	e.Time = e.Time.Add(120 * time.Millisecond)
	e.Recorded = e.Recorded.Truncate(time.Second)
	e.Sequence = math.MaxUint64
	want := updatedLine
	for _, change := range [][2]string{
		{`,"previous":{"b":1e2}`, ``},
		{`,"datacontenttype"`, `,"backfill":true,"datacontenttype"`},
		{`20:46:20Z`, `20:46:20.12Z`},
		{`20:46:31.123Z`, `20:46:31.000Z`},
		{`00000000000000001042`, `18446744073709551615`},
	} {
		want = strings.Replace(want, change[0], change[1], 1)
	}
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("an event of a backfill is\n%s\nwant\n%s", got, want)
	}
}

// The official SDK reads what we write.
func TestCloudEvents(t *testing.T) {
	for _, backfill := range []bool{false, true} {
		e := updated()
		e.Backfill = backfill
		line := e.AppendJSON(nil)
		var ce cloudevents.Event
		if err := ce.UnmarshalJSON(line); err != nil {
			t.Fatal(err)
		}
		if err := ce.Validate(); err != nil {
			t.Error(err)
		}
		if ce.SpecVersion() != "1.0" || ce.ID() != e.ID || ce.Source() != e.Source || ce.Type() != e.Type || ce.Subject() != e.Subject ||
			!ce.Time().Equal(e.Time) || ce.DataContentType() != "application/json" {
			t.Errorf("the SDK reads\n%v", ce)
		}
		want := map[string]any{
			"recordedtime": "2026-02-02T20:46:31.123Z", "sequence": "00000000000000001042", "partitionkey": e.PartitionKey,
		}
		if backfill {
			want["backfill"] = true
		}
		got := ce.Extensions()
		for name, value := range want {
			if got[name] != value {
				t.Errorf("extension %s is %v, want %v", name, got[name], value)
			}
		}
		if len(got) != len(want) {
			t.Errorf("extensions: %v", got)
		}
		if data := `{"item":` + string(e.Item) + `,"previous":` + string(e.Previous) + `}`; string(ce.Data()) != data {
			t.Errorf("data is %s, want %s", ce.Data(), data)
		}
	}
}

func TestParseHeader(t *testing.T) {
	h, err := event.ParseHeader([]byte(updatedLine))
	want := event.Header{
		ID: "shop-a/questions/2ncBtX4B9I0UHoornoqG/2-8f14e45fceea167a", Account: "shop-a", Stream: "questions",
		Type: "wildberries.question.updated", Subject: "question/2ncBtX4B9I0UHoornoqG",
		Recorded: time.Date(2026, 2, 2, 20, 46, 31, 123_000_000, time.UTC), Sequence: 1042,
		PartitionKey: "shop-a/question/2ncBtX4B9I0UHoornoqG",
	}
	if h != want || err != nil {
		t.Errorf("header is %+v, %v; want %+v", h, err, want)
	}
}

// schemaChanged is about a path that must be escaped to be JSON.
func schemaChanged() event.Event {
	const account, stream, path = "shop-a", "feedbacks", `productDetails."a\u200b.<b>"`
	subject := event.SchemaSubject(stream)
	at := time.Date(2026, 2, 2, 20, 46, 31, 123_000_000, time.UTC)
	return event.Event{
		ID:           event.SchemaChangedID(account, stream, 3, path),
		Source:       event.Source("wildberries", account, stream),
		Type:         event.SchemaChanged,
		Subject:      subject,
		Time:         at,
		Recorded:     at,
		Sequence:     7,
		PartitionKey: event.PartitionKey(account, subject),
		Schema:       &event.SchemaChange{Account: account, Stream: stream, Path: path, Count: 1200},
	}
}

// Contract §6: the one event that is about no item, as the official SDK and
// delivery read it.
func TestSchemaChanged(t *testing.T) {
	e := schemaChanged()
	line := e.AppendJSON(nil)
	var ce cloudevents.Event
	if err := ce.UnmarshalJSON(line); err != nil {
		t.Fatal(err)
	}
	if err := ce.Validate(); err != nil {
		t.Error(err)
	}
	if ce.Type() != "syncd.schema_changed" || ce.Subject() != "schema/feedbacks" || ce.Source() != "syncd://wildberries/shop-a/feedbacks" ||
		ce.ID() != "shop-a/feedbacks/syncd:schema_changed/3-31cba6dfdf280717" || ce.Extensions()["partitionkey"] != "shop-a/schema/feedbacks" {
		t.Errorf("the SDK reads\n%v", ce)
	}
	var data map[string]any
	if err := ce.DataAs(&data); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"account": "shop-a", "stream": "feedbacks", "path": `productDetails."a\u200b.<b>"`, "count": 1200.0}
	if !maps.Equal(data, want) {
		t.Errorf("data is %v, want %v", data, want)
	}
	h, err := event.ParseHeader(line)
	wantHeader := event.Header{ID: e.ID, Account: "shop-a", Stream: "feedbacks", Type: e.Type, Subject: e.Subject, Recorded: e.Recorded,
		Sequence: 7, PartitionKey: e.PartitionKey}
	if h != wantHeader || err != nil {
		t.Errorf("header is %+v, %v; want %+v", h, err, wantHeader)
	}
	for _, change := range [][2]string{
		{`"type":"syncd.schema_changed"`, `"type":"wildberries.question.created"`},
		{`"data":{"account":`, `"data":{"item":`},
	} {
		if h, err := event.ParseHeader([]byte(strings.Replace(string(line), change[0], change[1], 1))); err == nil {
			t.Errorf("with %s for %s it is taken for one of ours: %+v", change[1], change[0], h)
		}
	}
}

// Only what AppendJSON writes is a line of ours.
func TestParseHeaderRefuses(t *testing.T) {
	if _, err := event.ParseHeader(nil); err == nil {
		t.Error("an empty line is taken for one of ours")
	}
	for _, change := range [][2]string{
		{`{"specversion"`, ` {"specversion"`},
		{`"1.0"`, `"1.1"`},
		{`"1.0",`, `"1.0", `},
		{`,"id":`, `,"ID":`},
		{`"shop-a/questions/2ncBtX4B9I0UHoornoqG/`, `"shop-a-questions`},
		{`shop-a/questions/2n`, `shop-a/que\u0073tions/2n`},
		{`,"subject":"question/2ncBtX4B9I0UHoornoqG"`, ``},
		{`"question/2ncBtX4B9I0UHoornoqG"`, `null`},
		{`"00000000000000001042"`, `"x"`},
		{`"00000000000000001042"`, `"-0000000000000001042"`},
		{`"00000000000000001042"`, `"1042"`},
		{`"00000000000000001042"`, `"99999999999999999999"`},
		{`31.123Z`, `31Z`},
		{`31.123Z`, `31.123456Z`},
		{`31.123Z`, `31,123Z`},
		{`31.123Z`, `31.123+03:00`},
		{`2026-02-02T20:46:31`, `2026-02-30T20:46:31`},
		{`,"datacontenttype":"application/json"`, ``},
		{`"application/json"`, `"text/plain"`},
		{`,"datacontenttype"`, `,"backfill":false,"datacontenttype"`},
		{`,"data":{"item":`, `,"data":{"Item":`},
	} {
		line := strings.Replace(updatedLine, change[0], change[1], 1)
		if line == updatedLine {
			t.Fatalf("no %s in the line", change[0])
		}
		if h, err := event.ParseHeader([]byte(line)); err == nil {
			t.Errorf("with %s for %s it is taken for one of ours: %+v", change[1], change[0], h)
		}
	}
	attributes, _, _ := strings.Cut(updatedLine, `{"b"`)
	for n := range len(attributes) {
		if h, err := event.ParseHeader([]byte(updatedLine[:n])); err == nil {
			t.Errorf("%s\nis taken for one of ours: %+v", updatedLine[:n], h)
		}
	}
}

// The data is not looked at, however much there is of it.
func TestParseHeaderCost(t *testing.T) {
	e := updated()
	e.Item = json.RawMessage(`"` + strings.Repeat("x", 16<<20) + `"`)
	line := e.AppendJSON(nil)
	// id, type, subject, partitionkey: the strings of the header.
	if n := testing.AllocsPerRun(100, func() { event.ParseHeader(line) }); n > 4 {
		t.Errorf("ParseHeader allocates %v times", n)
	}
}

// FuzzParseHeader checks that any bytes are refused or are a line of ours: its
// attributes, rendered again, are the same bytes.
func FuzzParseHeader(f *testing.F) {
	f.Add([]byte(updatedLine))
	f.Add([]byte(strings.Replace(updatedLine, `,"datacontenttype"`, `,"backfill":true,"datacontenttype"`, 1)))
	f.Add([]byte(`{"specversion":"1.0","id":"a/b"}`))
	schema := schemaChanged()
	f.Add(schema.AppendJSON(nil))
	f.Fuzz(func(t *testing.T, line []byte) {
		h, err := event.ParseHeader(line)
		if err != nil {
			return
		}
		attribute := func(name string) string {
			_, rest, _ := strings.Cut(string(line), `","`+name+`":"`)
			value, _, _ := strings.Cut(rest, `"`)
			return value
		}
		at, source := attribute("time"), attribute("source")
		e := event.Event{
			ID: h.ID, Source: source, Type: h.Type, Subject: h.Subject, Recorded: h.Recorded,
			Sequence: h.Sequence, PartitionKey: h.PartitionKey, Backfill: h.Backfill,
		}
		end := "}}"
		if h.Type == event.SchemaChanged {
			e.Schema = new(event.SchemaChange)
			end = `","stream":"","path":"","count":0}}`
		}
		// The header holds neither the time nor the data.
		again := strings.Replace(string(e.AppendJSON(nil)), `"time":"0001-01-01T00:00:00Z"`, `"time":"`+at+`"`, 1)
		again = strings.TrimSuffix(again, end)
		if !strings.HasPrefix(string(line), again) {
			t.Errorf("%q\nis taken for one of ours, but\n%q\nis what we write", line, again)
		}
	})
}

// FuzzRoundTrip checks that what AppendJSON renders of any item, by the
// functions that make its parts, is read back.
func FuzzRoundTrip(f *testing.F) {
	f.Add("shop-a", "questions", "2ncBtX4B9I0UHoornoqG", uint64(2), int64(1770065191123), true, `{"a":1}`)
	f.Add("a", "s", "\"\\/\x00.é", uint64(0), int64(0), false, `""`)
	f.Fuzz(func(t *testing.T, account, stream, item string, sequence uint64, ms int64, backfill bool, data string) {
		var compact bytes.Buffer
		recorded := time.UnixMilli(ms).UTC()
		if json.Compact(&compact, []byte(data)) != nil || recorded.Year() < 1 || recorded.Year() > 9999 {
			return
		}
		account, stream = event.Escape(account), event.Escape(stream)
		subject := "question/" + event.Path(item)
		want := event.Header{
			ID: event.ItemEventID(account, stream, event.Path(item)), Account: account, Stream: stream, Type: "m.question.created",
			Subject: subject, Recorded: recorded, Sequence: sequence, PartitionKey: event.PartitionKey(account, subject), Backfill: backfill,
		}
		e := event.Event{
			ID: want.ID, Source: event.Source("m", account, stream), Type: want.Type, Subject: subject, Time: recorded, Recorded: recorded,
			Sequence: sequence, PartitionKey: want.PartitionKey, Backfill: backfill, Item: compact.Bytes(),
		}
		line := e.AppendJSON(nil)
		if !json.Valid(line) || bytes.ContainsRune(line, '\n') {
			t.Errorf("not one line of JSON: %q", line)
		}
		if got, err := event.ParseHeader(line); got != want || err != nil {
			t.Errorf("read back: %+v, %v\nwant %+v", got, err, want)
		}
		if !bytes.HasSuffix(line, append(append([]byte(`"data":{"item":`), compact.Bytes()...), "}}"...)) {
			t.Errorf("the item is not as it was: %q", line)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	e := updated()
	e.Item = json.RawMessage(`"` + strings.Repeat("x", 640) + `"`)
	b.ReportAllocs()
	var line []byte
	for b.Loop() {
		line = e.AppendJSON(line[:0])
	}
}

func BenchmarkParseHeader(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		event.ParseHeader([]byte(updatedLine))
	}
}
