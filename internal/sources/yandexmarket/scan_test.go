package yandexmarket_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// TestScan: a list is read to its end, whatever its pages and their tokens are like,
// and where that cannot be the run ends and says so.
func TestScan(t *testing.T) {
	entry := func(n int) string { return fmt.Sprintf(`{"chatId":%d,"status":"NEW"}`, 1000+n) }
	// five pages of two chats, by their tokens
	number := func(token string) (n int) {
		_, _ = fmt.Sscanf(token, "p%d", &n)
		return n
	}
	five := func(next func(n int) string) func(c call) (int, string) {
		return func(c call) (int, string) {
			n := number(c.token)
			return 200, page("chats", []string{entry(2 * n), entry(2*n + 1)}, next(n))
		}
	}
	plain := func(n int) string {
		if n == 4 {
			return ""
		}
		return fmt.Sprint("p", n+1)
	}
	refused := failure("BAD_REQUEST", "Bad page token")
	calls := 0
	for _, tt := range []struct {
		name   string
		answer func(c call) (int, string)
		chats  int
		asks   int // requests; at most
		note   string
	}{
		{"as documented", five(plain), 10, 5, ""},
		{"paging is null", func(call) (int, string) {
			return 200, `{"status":"OK","result":{"chats":[` + entry(1) + `],"paging":null}}`
		}, 1, 1, ""},
		{"no paging", func(call) (int, string) { return 200, `{"status":"OK","result":{"chats":[` + entry(1) + `]}}` }, 1, 1, ""},
		{"no result", func(call) (int, string) { return 200, `{"status":"OK"}` }, 0, 1, "without a list"},
		{"result is null", func(call) (int, string) { return 200, `{"status":"OK","result":null}` }, 0, 1, "without a list"},
		{"no list", func(call) (int, string) { return 200, `{"status":"OK","result":{"paging":{}}}` }, 0, 1, "without a list"},
		{"no list on the second page", func(c call) (int, string) {
			if c.token == "" {
				return five(plain)(c)
			}
			return 200, `{"status":"OK","result":{}}`
		}, 2, 2, "without a list"},
		{"the list is null", func(call) (int, string) {
			return 200, `{"status":"OK","result":{"chats":null,"paging":{"nextPageToken":""}}}`
		}, 0, 1, ""},
		{"tokens are numbers", func(c call) (int, string) {
			if c.token == "" {
				return 200, `{"status":"OK","result":{"chats":[` + entry(1) + `],"paging":{"nextPageToken":17}}}`
			}
			return 200, page("chats", []string{entry(2)}, "")
		}, 2, 2, ""},
		{"empty pages in between", func(c call) (int, string) {
			n := number(c.token)
			entries := []string{entry(n)}
			if n%3 > 0 {
				entries = nil
			}
			return 200, page("chats", entries, map[bool]string{true: fmt.Sprint("p", n+1)}[n < 9])
		}, 4, 10, ""},
		{"one token for all pages", func(c call) (int, string) {
			calls++
			return 200, page("chats", []string{entry(calls)}, map[bool]string{true: "scroll"}[calls < 7])
		}, 7, 7, ""},
		{"the first page for ever", five(func(int) string { return "p0" }), 2, 2, "in circles"},
		{"the last page for ever", five(func(n int) string { return fmt.Sprint("p", min(n+1, 4)) }), 10, 20, "in circles"},
		{"a circle of three", five(func(n int) string { return fmt.Sprint("p", []int{1, 2, 3, 4, 2}[n]) }), 10, 20, "in circles"},
		{"nothing for ever", func(call) (int, string) { return 200, page("chats", nil, "p") }, 0, 4, "in circles"},
		{"a token that is too long", five(func(int) string { return strings.Repeat("x", 5000) }), 2, 1, "has 5000 bytes"},
		{"the third token is refused", func(c call) (int, string) {
			if number(c.token) == 3 {
				return 400, refused
			}
			return five(plain)(c)
		}, 6, 15, "the token of page 4 was refused 3 times in a row"},
		{"tokens live for a while", func(c call) (int, string) {
			if calls++; c.token != "" && calls%4 == 0 {
				return 400, refused
			}
			return five(plain)(c)
		}, 6, 15, "the token of page 4 was refused 3 times"},
		{"tokens are refused at times", func(c call) (int, string) {
			if calls++; c.token != "" && (calls == 2 || calls == 4 || calls == 8 || calls == 14 || calls == 20) {
				return 400, refused
			}
			return five(plain)(c)
		}, 10, 30, ""},
		{"tokens are refused once late and then early", func(c call) (int, string) {
			if n := number(c.token); n == 4 || n == 1 && calls > 0 {
				calls++
				return 400, refused
			}
			return five(plain)(c)
		}, 8, 16, "was refused 6 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				calls = 0
				f := newFake(t)
				f.on["POST /v2/businesses/chats"] = tt.answer
				rd := newReader(t, open(t, f), yandexmarket.Chats, sources.News)
				rd.limit = 100
				last, _ := rd.run()
				asked := len(f.took())
				if len(rd.seen) != tt.chats || asked > tt.asks || tt.note == "" && asked < tt.asks && tt.asks < 11 {
					t.Errorf("read %d chats of %d, asked %d times, expected %d", len(rd.seen), tt.chats, asked, tt.asks)
				}
				if !strings.Contains(last.Note, tt.note) || (last.Note == "") != (tt.note == "") || last.Partial != (tt.note != "") {
					t.Errorf("partial %t, note %q; expected %q", last.Partial, last.Note, tt.note)
				}
				if string(rd.cursor) == "" || strings.Contains(string(rd.cursor), "run") {
					t.Errorf("cursor %s", rd.cursor)
				}
			}))
		})
	}
}

// TestScanUnreadable: an answer that is no list is not taken for an empty one.
func TestScanUnreadable(t *testing.T) {
	for _, body := range []string{`{}`, `{"status":"ERROR","errors":[{"code":"X"}]}`, `{"result":{"chats":[]}}`, `{"status":"ERROR","result":{"chats":[]}}`, `{"status":"OK","result":{"chats":{}}}`, `{"status":{},"result":null}`, `[]`} {
		synctest.Test(t, bubble(func(t *testing.T) {
			f := newFake(t)
			f.on["POST /v2/businesses/chats"] = func(call) (int, string) { return 200, body }
			rd := newReader(t, open(t, f), yandexmarket.Chats, sources.News)
			if p, err := rd.fetch(); sources.AsError(err).Kind != sources.Unreadable {
				t.Errorf("%s: %+v, %v", body, p, err)
			}
		}))
	}
}

// TestPageSize: where the marketplace allows smaller pages only than it documents, that
// costs one failure, which passes.
func TestPageSize(t *testing.T) {
	for _, tt := range []struct {
		said, asked string // the text, and the limits of the requests
		kind        sources.Kind
	}{
		{"Limit must be less than or equal to '7'", "20 7 7", sources.Temporary},
		{"Parameter limit must be less than or equal to '7'", "20 7 7", sources.Temporary},
		{"limit must be less than or equal to 7", "20 7 7", sources.Temporary},
		{"Limit must be less than or equal to '0'", "20 1 1", sources.Temporary},
		{"Limit must be less than or equal to '-5'", "20 20 20", sources.Rejected},
		{"Limit must be less than or equal to '50'", "20 20 20", sources.Rejected},
		{"Limit must be less than or equal to '99999999999999999999'", "20 20 20", sources.Rejected},
		{"Limit must be less than or equal to 'max-limit'", "20 20 20", sources.Rejected},
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			f := newFake(t)
			f.on["POST /v2/businesses/chats"] = func(c call) (int, string) {
				if c.limit > 7 {
					return 400, failure("BAD_REQUEST", tt.said)
				}
				return 200, page("chats", nil, "")
			}
			rd := newReader(t, open(t, f), yandexmarket.Chats, sources.News)
			var limits []string
			for i := range 3 {
				if _, err := rd.fetch(); err != nil && sources.AsError(err).Kind != tt.kind || i == 0 && err == nil {
					t.Errorf("%s: %v", tt.said, err)
				}
				for _, c := range f.took() {
					limits = append(limits, fmt.Sprint(c.limit))
				}
				time.Sleep(time.Minute)
			}
			if got := strings.Join(limits, " "); got != tt.asked {
				t.Errorf("%s: asked for %q, expected %q", tt.said, got, tt.asked)
			}
		}))
	}
}
