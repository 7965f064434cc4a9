package apiclient_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// zipped is what a server sends that compresses s.
func zipped(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.Bytes()
}

// drips sends what never ends, a little at a time.
func drips(status int, s string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, s)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Second)
		}
	}
}

// TestAnswersThatCannotBeRead: none hangs, none is unbounded, each says why; and
// whether the way there was at fault, the answer, or its size.
func TestAnswersThatCannotBeRead(t *testing.T) {
	sends := func(encoding string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body)
		}
	}
	long := bytes.Clone(zipped(strings.Repeat("0123456789", 10_000)))
	damaged := append(bytes.Clone(long[:10]), 0xff) // a block of a kind that there is not
	checksum := bytes.Clone(long)
	checksum[len(checksum)-8] ^= 1
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		kind    sources.Kind
		tooMuch bool
		want    string
		within  time.Duration
	}{
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, sources.Temporary, false, "no complete answer within 20s", 22 * time.Second},
		{"drips", drips(200, " "), sources.Temporary, true, "read the answer: no complete answer within 20s", 22 * time.Second},
		{"drips an error", drips(500, ""), sources.Temporary, false, "no complete answer within 20s", 22 * time.Second},
		{"too long", func(w http.ResponseWriter, _ *http.Request) {
			chunk := strings.Repeat("x", 64<<10)
			for i := range 512 {
				if _, err := io.WriteString(w, chunk); err != nil {
					if i > 64 {
						t.Errorf("%d KiB were read of an answer that may have 1024", 64*i)
					}
					return
				}
			}
			t.Error("all of an endless answer was read")
		}, sources.Unreadable, true, "the answer is longer than 1048576 bytes", 3 * time.Second},
		{"too long by one", sends("", make([]byte, 1<<20+1)), sources.Unreadable, true, "the answer is longer than 1048576 bytes", 3 * time.Second},
		{"gzip bomb", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			chunk := make([]byte, 1<<20)
			for range 200 {
				if _, err := z.Write(chunk); err != nil {
					return
				}
			}
			_ = z.Close()
		}, sources.Unreadable, true, "the answer is longer than 1048576 bytes", 3 * time.Second},
		{"gzip garbage", sends("gzip", []byte("nothing of the sort")), sources.Unreadable, false, "read the answer: gzip: invalid header", 3 * time.Second},
		{"gzip damaged", sends("gzip", damaged), sources.Unreadable, false, "read the answer: flate: corrupt input", 3 * time.Second},
		{"gzip checksum", sends("gzip", checksum), sources.Unreadable, false, "read the answer: gzip: invalid checksum", 3 * time.Second},
		{"gzip cut short", sends("gzip", long[:len(long)/2]), sources.Temporary, false, "read the answer: unexpected EOF", 3 * time.Second},
		{"gzip twice", sends("gzip, gzip", zipped(string(long))), sources.Unreadable, false, `the answer is encoded as "gzip, gzip", which was not asked for`, 3 * time.Second},
		{"brotli", sends("br", []byte("{}")), sources.Unreadable, false, `the answer is encoded as "br", which was not asked for`, 3 * time.Second},
		{"brotli, refused", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			w.WriteHeader(502)
			_, _ = w.Write([]byte{0x1b, 0x00})
		}, sources.Temporary, false, `its text is encoded as "br", which was not asked for`, 3 * time.Second},
		{"encoding that leaks", sends(secret, nil), sources.Unreadable, false, "not asked for", 3 * time.Second},
		{"cut short", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"result":`)
		}, sources.Temporary, false, "read the answer: unexpected EOF", 3 * time.Second},
		{"reset", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"result":`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, sources.Temporary, false, "read the answer: unexpected EOF", 3 * time.Second},
		{"dropped", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, sources.Temporary, false, "EOF", 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			served(t, tt.handler, nil, func(t *testing.T, c *apiclient.Client) {
				began := time.Now()
				_, err := get(t.Context(), c)
				e := failure(t, err)
				if e.Kind != tt.kind || e.TooMuch != tt.tooMuch || e.Scope != sources.ScopeRequest || e.Request != asked || !strings.Contains(e.Error(), tt.want) {
					t.Errorf("got %+v: %v\nexpected %s, too much %v, with %q", e, e, tt.kind, tt.tooMuch, tt.want)
				}
				if d := time.Since(began); d > tt.within {
					t.Errorf("took %s", d)
				}
			})
		})
	}
}

// TestAnswersThatFit: as long as allowed, plain and compressed.
func TestAnswersThatFit(t *testing.T) {
	for _, encoding := range []string{"", "gzip", "identity"} {
		served(t, func(w http.ResponseWriter, r *http.Request) {
			body := bytes.Repeat([]byte("x"), 1<<20)
			if encoding != "" {
				w.Header().Set("Content-Encoding", encoding)
			}
			if encoding == "gzip" {
				if r.Header.Get("Accept-Encoding") != "gzip" {
					t.Error("compression was not asked for")
				}
				body = zipped(string(body))
			}
			_, _ = w.Write(body)
		}, nil, func(t *testing.T, c *apiclient.Client) {
			n := 0
			_, err := c.Do(t.Context(), apiclient.Request{Path: "/v1/things", Read: func(body io.Reader, _ time.Time) error {
				b, err := io.ReadAll(body)
				n = len(b)
				return err
			}})
			if err != nil || n != 1<<20 {
				t.Errorf("%q: %d bytes, %v", encoding, n, err)
			}
		})
	}
}

// TestReaderErrors: what the reader says of an answer is said, but for a page that
// a gateway sent in its place; and a broken connection stays one, whatever the
// reader made of it.
func TestReaderErrors(t *testing.T) {
	bad := errors.New("no list where it should be: " + secret)
	first := func(body io.Reader, _ time.Time) error {
		_, _ = body.Read(make([]byte, 10))
		return bad
	}
	swallows := func(body io.Reader, _ time.Time) error {
		_, _ = io.Copy(io.Discard, body)
		return nil
	}
	page := "\n<!DOCTYPE html><html><head><title>Just a moment ...</title></head>" + strings.Repeat("<p>", 1000)
	for _, tt := range []struct {
		name, contentType, body string
		read                    func(io.Reader, time.Time) error
		kind                    sources.Kind
		want                    string
	}{
		{"a bad answer", "application/json", "{}", first, sources.Unreadable, "GET /v1/things: answer 200: no list where it should be: [token]"},
		{"a bad answer of the wrong type", "text/html", "{}", first, sources.Unreadable, "GET /v1/things: answer 200: no list where it should be: [token]"},
		{"nothing", "text/html", "", first, sources.Unreadable, "GET /v1/things: answer 200: no list where it should be: [token]"},
		{"a page", "text/html; charset=utf-8", page, first, sources.Unreadable, "GET /v1/things: answer 200: an HTML page: Just a moment ..."},
		{"a page that says it is none", "application/json", "\xef\xbb\xbf" + page, first, sources.Unreadable, "GET /v1/things: answer 200: an HTML page: Just a moment ..."},
		{"a page without tags", "Text/HTML", "Bad " + secret + " gateway", first, sources.Unreadable, "GET /v1/things: answer 200: Bad [token] gateway"},
		{"a page that is an answer", "text/html", page, func(io.Reader, time.Time) error { return nil }, "", ""},
		{"cut short, unnoticed", "application/json", "", swallows, sources.Temporary, "GET /v1/things: answer 200: read the answer: unexpected EOF"},
		{"cut short, taken for something else", "text/html", "<html>", func(body io.Reader, date time.Time) error {
			_ = swallows(body, date)
			return bad
		}, sources.Temporary, "GET /v1/things: answer 200: read the answer: unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			served(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.contentType)
				if strings.HasPrefix(tt.name, "cut short") {
					w.Header().Set("Content-Length", "100")
				}
				_, _ = io.WriteString(w, tt.body)
			}, nil, func(t *testing.T, c *apiclient.Client) {
				_, err := c.Do(t.Context(), apiclient.Request{Path: "/v1/things", Read: tt.read})
				if tt.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if e := failure(t, err); e.Kind != tt.kind || e.Error() != tt.want || e.TooMuch || e.Status != 200 {
					t.Errorf("got %+v\n%v\nexpected %s\n%s", e, e, tt.kind, tt.want)
				}
			})
		})
	}
}

// TestConnectionIsUsedAgain after an answer that was not read to its end, unless
// that is far or slow to come.
func TestConnectionIsUsedAgain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		reused  bool
	}{
		{"short", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 100<<10)) }, true},
		{"long", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 900<<10)) }, false},
		{"slow", drips(200, "x"), false},
		{"refused", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, strings.Repeat("x", 60<<10))
		}, true},
	} {
		for _, read := range []func(io.Reader, time.Time) error{nil, func(io.Reader, time.Time) error { return errors.New("enough") }} {
			t.Run(fmt.Sprint(tt.name, read == nil), func(t *testing.T) {
				served(t, tt.handler, nil, func(t *testing.T, c *apiclient.Client) {
					reused := false
					ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
					for range 2 {
						began := time.Now()
						_, err := c.Do(ctx, apiclient.Request{Path: "/v1/things", Read: read})
						if (err == nil) != (read == nil && tt.name != "refused") || err != nil && strings.Contains(err.Error(), "longer") {
							t.Errorf("got %v", err)
						}
						if d := time.Since(began); d > 4*time.Second {
							t.Errorf("took %s", d)
						}
					}
					if reused != tt.reused {
						t.Errorf("the connection was used again: %v", reused)
					}
				})
			})
		}
	}
}

// TestShutdownIsNotTooMuch: an answer that a shutdown cuts off says nothing about
// its size.
func TestShutdownIsNotTooMuch(t *testing.T) {
	served(t, drips(200, "x"), nil, func(t *testing.T, c *apiclient.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := get(ctx, c)
		if e := failure(t, err); e.TooMuch || e.Kind != sources.Temporary || !strings.Contains(e.Error(), "stopped: the grace period") {
			t.Errorf("got %+v: %v", e, e)
		}
	})
}
