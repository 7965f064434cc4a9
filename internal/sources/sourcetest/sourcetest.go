// Package sourcetest is the contract suite that every stream of every
// marketplace must pass, and the network without sockets that it runs on.
//
// The suite knows sources.Source and nothing of a marketplace: what an answer
// looks like it is told by a Stream. How a stream walks is the business of the
// stream's own tests.
package sourcetest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"syncd/internal/sources"
)

// Stream is one stream of a marketplace.
type Stream struct {
	Name   string
	Secret string // the token, which must come out nowhere
	Header string // the one that holds it; empty: Authorization

	// Open returns a source whose requests, to whatever host, go through
	// transport. It has tokens in its budget soon.
	Open func(t testing.TB, transport http.RoundTripper) sources.Source

	// Query, if set, makes of a query for news the one whose answer lists items, where
	// that is another one: of another walk, or behind what has no items.
	Query func(q *sources.Query)

	// List is the body of an answer that lists items.
	List func(items ...string) string

	// Item is the n-th item, a JSON object without white space, created n minutes
	// before Epoch.
	Item func(n int) string

	// Timeless items do not say when they were created: that is when they changed.
	Timeless bool

	// Needed are the keys of an item without which it has no identity.
	Needed []string
}

// Run runs the suite.
func Run(t *testing.T, s Stream) {
	t.Run("items", s.testItems)
	t.Run("empty page", s.testEmptyPage)
	t.Run("repeated page", s.testRepeatedPage)
	t.Run("no such walk", s.testNoSuchWalk)
	t.Run("cancellation", s.testCancellation)
	t.Run("refusals", s.testRefusals)
	t.Run("unreadable answers", s.testUnreadable)
	t.Run("faithful bodies", s.testFaithful)
	t.Run("invalid UTF-8", s.testInvalidUTF8)
	t.Run("odd fields", s.testOddFields)
	t.Run("odd entries", s.testOddEntries)
}

// world is one source and one server, in a bubble.
type world struct {
	Stream
	source   sources.Source
	requests *atomic.Int64
}

func (s Stream) serve(t *testing.T, handler http.HandlerFunc, f func(t *testing.T, w world)) {
	t.Helper()
	header := cmp.Or(s.Header, "Authorization")
	synctest.Test(t, func(t *testing.T) {
		SetClock()
		n := NewNetwork(t)
		w := world{Stream: s, requests: new(atomic.Int64)}
		n.Serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.requests.Add(1)
			if got := r.Header.Get(header); got != s.Secret {
				t.Errorf("%s is %q, expected the token alone", header, got)
			}
			handler(rw, r)
		}))
		w.source = s.Open(t, n.Transport(t))
		f(t, w)
	})
}

// answer runs f against a server that always answers 200 with body.
func (s Stream) answer(t *testing.T, body string, f func(t *testing.T, w world)) {
	t.Helper()
	s.serve(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, body) }, f)
}

func (w world) query(c sources.Cursor) sources.Query {
	q := sources.Query{Stream: w.Name, Walk: sources.News, Cursor: c, Overlap: time.Hour, Now: time.Now()}
	if w.Query != nil {
		w.Query(&q)
	}
	return q
}

func (w world) fetch(t *testing.T) sources.Page {
	t.Helper()
	page, err := w.source.Fetch(t.Context(), w.query(nil))
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// one returns the one item of a page.
func (w world) one(t *testing.T) sources.Item {
	t.Helper()
	page := w.fetch(t)
	if len(page.Items) != 1 || len(page.Undecodable) != 0 {
		t.Fatalf("%d items and %d undecodable ones, expected one item: %+v", len(page.Items), len(page.Undecodable), page.Undecodable)
	}
	return page.Items[0]
}

func (w world) leaks(s string) bool {
	for i := 0; i+16 <= len(w.Secret); i++ {
		if strings.Contains(s, w.Secret[i:i+16]) {
			return true
		}
	}
	return false
}

// fails returns the error of a fetch, which must be one request that holds to
// the contract.
func (w world) fails(t *testing.T) *sources.Error {
	t.Helper()
	page, err := w.source.Fetch(t.Context(), w.query(nil))
	e, ok := errors.AsType[*sources.Error](err)
	if !ok {
		t.Fatalf("got %+v, %v; expected a *sources.Error", page, err)
	}
	if page.Cursor != nil || page.Items != nil {
		t.Errorf("a page beside an error: %+v", page)
	}
	text := e.Error() + e.Hint
	if w.leaks(text) {
		t.Errorf("the error holds the token: %s", text)
	}
	if len(text) > 600 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) || !utf8.ValidString(text) {
		t.Errorf("the error is not fit for a log line: %q", text)
	}
	if n := w.requests.Load(); n != 1 {
		t.Errorf("%d requests, a source never tries again", n)
	}
	if e.Endpoint == "" || e.Scope == "" {
		t.Errorf("the error does not say what it is about: %+v", e)
	}
	return e
}

func (s Stream) testItems(t *testing.T) {
	s.answer(t, s.List(s.Item(1), s.Item(3), s.Item(2)), func(t *testing.T, w world) {
		page := w.fetch(t)
		if len(page.Items) != 3 || len(page.Undecodable) > 0 || page.Cursor == nil {
			t.Fatalf("got %+v", page)
		}
		ids := make(map[string]bool)
		for i, it := range page.Items {
			// The items of a page are in the order in which they happened.
			at := it.Created
			if s.Timeless {
				if at = it.Changed; !it.Created.IsZero() {
					t.Errorf("item %d was created at %s, which nothing says", i, it.Created)
				}
			}
			if want := Epoch.Add(-time.Duration(3-i) * time.Minute); !at.Equal(want) || at.Location() != time.UTC {
				t.Errorf("item %d is of %s, expected %s", i, at, want)
			}
			ids[fmt.Sprint(it.ID)] = true
			if it.Kind == "" || len(it.ID) == 0 || len(it.Subject) < 2 || slices.Contains(it.ID, "") || slices.Contains(it.Subject, "") {
				t.Errorf("item %d has no identity: %+v", i, it)
			}
		}
		if len(ids) != 3 {
			t.Errorf("ids %v, expected three", ids)
		}
	})
}

func (s Stream) testEmptyPage(t *testing.T) {
	s.answer(t, s.List(), func(t *testing.T, w world) {
		var c sources.Cursor
		for i := 1; ; i++ {
			page, err := w.source.Fetch(t.Context(), w.query(c))
			if err != nil || len(page.Items) > 0 || len(page.Undecodable) > 0 || page.Note != "" {
				t.Fatalf("got %+v, %v", page, err)
			}
			if c = page.Cursor; page.Done {
				return
			}
			if i == 4 {
				t.Fatalf("%d requests to see that there is nothing", i)
			}
		}
	})
}

func (s Stream) testRepeatedPage(t *testing.T) {
	var items []string
	for i := range 50 {
		items = append(items, s.Item(50-i))
	}
	s.answer(t, s.List(items...), func(t *testing.T, w world) {
		var c sources.Cursor
		for run := range 5 {
			for i := 1; ; i++ {
				page, err := w.source.Fetch(t.Context(), w.query(c))
				if err != nil || len(page.Items) != 50 {
					t.Fatalf("got %d items, %v", len(page.Items), err)
				}
				if c = page.Cursor; page.Done {
					break
				}
				if i == 12 {
					t.Fatalf("run %d has no end: %s", run, c)
				}
			}
		}
	})
}

func (s Stream) testNoSuchWalk(t *testing.T) {
	s.answer(t, s.List(), func(t *testing.T, w world) {
		q := w.query(nil)
		q.Walk = "sideways"
		if _, err := w.source.Fetch(t.Context(), q); !errors.Is(err, sources.ErrNoSuchWalk) {
			t.Errorf("got %v", err)
		}
		q = w.query(nil)
		q.Stream = "nonsense"
		if _, err := w.source.Fetch(t.Context(), q); err == nil {
			t.Error("a stream that does not exist was read")
		}
		q = w.query(sources.Cursor("{not a cursor"))
		if _, err := w.source.Fetch(t.Context(), q); err == nil {
			t.Error("a damaged cursor was taken for none")
		}
		if n := w.requests.Load(); n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}

func (s Stream) testCancellation(t *testing.T) {
	slow := func(rw http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		_, _ = io.WriteString(rw, s.List())
	}
	s.serve(t, slow, func(t *testing.T, w world) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.source.Fetch(ctx, w.query(nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := w.requests.Load(); n != 0 {
			t.Errorf("%d requests after the end", n)
		}
		// What is in flight is finished: it has been paid for.
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for w.requests.Load() == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			cancel()
		}()
		if _, err := w.source.Fetch(ctx, w.query(nil)); err != nil {
			t.Errorf("a request in flight was thrown away: %v", err)
		}
		time.Sleep(time.Minute)
	})
}

func (s Stream) testRefusals(t *testing.T) {
	for _, tt := range []struct {
		status int
		kind   sources.Kind
	}{
		{301, sources.Rejected}, {307, sources.Rejected}, {400, sources.Rejected}, {404, sources.Rejected}, {422, sources.Rejected},
		{401, sources.Unauthorized}, {402, sources.Payment}, {403, sources.Forbidden}, {429, sources.RateLimited},
		{500, sources.Temporary}, {502, sources.Temporary}, {503, sources.Temporary}, {504, sources.Temporary},
	} {
		for _, body := range []string{"", "<html>%s</html>", `{"title":"%s","detail":"%s","errorText":"%s","message":"%s"}`, `{"title":7,"detail":["%s"]}`, "\xff\x00%s", "%s", `{"detail":"cut off in the middle of %s`} {
			body = strings.ReplaceAll(body, "%s", s.Secret)
			s.serve(t, func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Location", "/"+s.Secret)
				if tt.status == http.StatusTooManyRequests {
					rw.Header().Set("X-Ratelimit-Retry", "3598")
					rw.Header().Set("Retry-After", "3598")
				}
				rw.WriteHeader(tt.status)
				_, _ = io.WriteString(rw, body)
			}, func(t *testing.T, w world) {
				e := w.fails(t)
				if e.Kind != tt.kind || e.Status != tt.status {
					t.Errorf("%d %.40q: got kind %s, status %d", tt.status, body, e.Kind, e.Status)
				}
				if tt.kind != sources.RateLimited {
					return
				}
				if d := time.Until(e.Until); d < 3590*time.Second || d > 3800*time.Second {
					t.Errorf("until %s from now", d)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3595*time.Second)
				defer cancel()
				if _, err := w.source.Fetch(ctx, w.query(nil)); sources.AsError(err).Kind != sources.BudgetWait {
					t.Errorf("another fetch: %v, expected a budget wait", err)
				}
				if n := w.requests.Load(); n != 1 {
					t.Errorf("%d requests in spite of a 429", n)
				}
			})
		}
	}
}

func (s Stream) testUnreadable(t *testing.T) {
	whole := s.List(s.Item(1))
	bodies := []string{"", "null", "[]", "{}", "7", `"x"`, "<html><body>" + s.Secret + "</body></html>", "\x00\xff", s.Secret,
		`{"data":null,"result":null,"error":true,"errorText":"` + s.Secret + `","errors":["` + s.Secret + `"]}`, whole[:len(whole)/2], whole[:len(whole)-1], whole + "x",
		strings.Repeat("[", 20_000)}
	for _, body := range bodies {
		s.answer(t, body, func(t *testing.T, w world) {
			if e := w.fails(t); e.Kind != sources.Unreadable {
				t.Errorf("%.40q: kind %s", body, e.Kind)
			}
		})
	}
	s.serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(whole)+10))
		_, _ = io.WriteString(rw, whole)
	}, func(t *testing.T, w world) {
		// The network did it, or the server: that cannot be told apart.
		if e := w.fails(t); e.Kind != sources.Temporary && e.Kind != sources.Unreadable {
			t.Errorf("cut short: kind %s", e.Kind)
		}
	})
	s.serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		space := bytes.Repeat([]byte(" "), 1<<20)
		for range 64 {
			if _, err := rw.Write(space); err != nil {
				return
			}
		}
		_, _ = io.WriteString(rw, whole)
	}, func(t *testing.T, w world) {
		if e := w.fails(t); e.Kind != sources.Unreadable || !e.TooMuch || !strings.Contains(e.Error(), "longer than") {
			t.Errorf("oversize: %v", e)
		}
	})
}

// odd are members that must leave as they came, white space between tokens apart.
const odd = ` "zz" : [ 1.0 , 1e3,1E+2,-0,-0.0,0.10,12345678901234567890,1.00000000000000000001e-400 ],` + "\n\t" +
	`"aa":"\u0041\/\u00e9\ud83d\ude00<script>&amp;\u2028\u2029é\b\f\n\r\t\"\\","\u006bey" : { "b" : null , "a" : [ ] } , "":true,"lone":"\ud800",`

func with(item, members string) string { return "{" + members + item[1:] }

func (s Stream) testFaithful(t *testing.T) {
	raw := with(s.Item(1), odd)
	s.answer(t, s.List(raw), func(t *testing.T, w world) {
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(raw)); err != nil {
			t.Fatal(err)
		}
		if got := string(w.one(t).Body); got != want.String() {
			t.Errorf("body\n%s\nexpected\n%s", got, want.String())
		}
	})
}

func (s Stream) testInvalidUTF8(t *testing.T) {
	s.answer(t, s.List(with(s.Item(1), "\"bad\":\"a\xff\xfeb\xc3\",")), func(t *testing.T, w world) {
		got := w.one(t).Body
		if !utf8.Valid(got) || !json.Valid(got) || !bytes.Contains(got, []byte(`"bad":"a`)) || !bytes.HasSuffix(got, []byte(s.Item(1)[1:])) {
			t.Errorf("body %q", got)
		}
	})
}

// testOddFields: a field that is missing, null or of another type never costs
// the page, and the item only where it has no identity without it.
func (s Stream) testOddFields(t *testing.T) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s.Item(1)), &members); err != nil {
		t.Fatal(err)
	}
	for key := range members {
		for _, value := range []string{"", "null", "true", "-1.5e300", "12345678901234567890", `""`, `"\u0000"`, `"x"`, "[]", "{}", `[{"a":null}]`, `{"createDate":5}`} {
			changed := make(map[string]json.RawMessage)
			for k, v := range members {
				changed[k] = v
			}
			if changed[key] = json.RawMessage(value); value == "" {
				delete(changed, key)
			}
			raw, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			s.answer(t, s.List(string(raw), s.Item(2)), func(t *testing.T, w world) {
				page := w.fetch(t)
				name := fmt.Sprintf("%s=%s", key, value)
				if len(page.Items)+len(page.Undecodable) != 2 || len(page.Items) == 0 {
					t.Fatalf("%s: got %+v", name, page)
				}
				if !slices.Contains(s.Needed, key) && len(page.Items) != 2 {
					t.Errorf("%s: the item is lost: %+v", name, page.Undecodable)
				}
				for _, u := range page.Undecodable {
					if u.Reason == "" || len(u.Raw) == 0 {
						t.Errorf("%s: no reason or raw form: %+v", name, u)
					}
				}
				for _, it := range page.Items {
					if slices.Contains(it.ID, "") || !json.Valid(it.Body) || it.Created.After(time.Now().Add(2*time.Hour)) || !it.Created.IsZero() && it.Created.Year() < 2004 {
						t.Errorf("%s: item %+v", name, it)
					}
				}
			})
		}
	}
	for _, key := range s.Needed {
		raw := strings.Replace(s.Item(1), fmt.Sprintf("%q:", key), `"other":`, 1)
		s.answer(t, s.List(raw), func(t *testing.T, w world) {
			if page := w.fetch(t); len(page.Items) != 0 || len(page.Undecodable) != 1 || string(page.Undecodable[0].Raw) != raw {
				t.Errorf("without %s: got %+v, expected one undecodable entry as it came", key, page)
			}
		})
	}
}

func (s Stream) testOddEntries(t *testing.T) {
	s.answer(t, s.List("null", "7", `"x"`, "[]", "{}", "true", s.Item(1)), func(t *testing.T, w world) {
		if page := w.fetch(t); len(page.Items) != 1 || len(page.Undecodable) != 6 {
			t.Errorf("%d items and %d undecodable entries, expected 1 and 6", len(page.Items), len(page.Undecodable))
		}
	})
}
