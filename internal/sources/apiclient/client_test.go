package apiclient_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

const secret = "eyJhbGciOiJFUzI1NiJ9.eyJhY2MiOjMsInNpZCI6IjEifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbi13aGljaC1pcy1sb25n"

// connect returns a client for http://api.test on n, with tokens to spend.
func connect(t *testing.T, transport http.RoundTripper, change func(*testing.T, *apiclient.Config)) *apiclient.Client {
	t.Helper()
	cfg := apiclient.Config{
		Account: "shop", Marketplace: "wildberries", Budget: "chat", BaseURL: "http://api.test", Token: secret, UserAgent: "syncd/test",
		Bucket: start(t, newLedger(), chat, 1).bucket, Metrics: apiclient.NewMetrics(prometheus.NewRegistry()), Transport: transport,
		Grace: 5 * time.Second, Timeout: 20 * time.Second, MaxBody: 1 << 20,
	}
	if change != nil {
		change(t, &cfg)
	}
	c, err := apiclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// get reads all that the answer holds.
func get(ctx context.Context, c *apiclient.Client) (apiclient.Response, error) {
	return c.Do(ctx, apiclient.Request{Stream: "s", Walk: sources.News, Path: "/v1/things", Query: url.Values{"take": {"5"}, "a": {"b c"}},
		Read: func(body io.Reader, _ time.Time) error {
			_, err := io.Copy(io.Discard, body)
			return err
		}})
}

const asked = "/v1/things?a=b+c&take=5" // what get sends

// served runs f in a bubble with a client and a server that answers by handler.
func served(t *testing.T, handler http.HandlerFunc, change func(*testing.T, *apiclient.Config), f func(t *testing.T, c *apiclient.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sourcetest.SetClock()
		n := sourcetest.NewNetwork(t)
		n.Serve(t, handler)
		f(t, connect(t, n.Transport(t), change))
	})
}

func failure(t *testing.T, err error) *sources.Error {
	t.Helper()
	e, ok := errors.AsType[*sources.Error](err)
	if !ok {
		t.Fatalf("got %v, expected a *sources.Error", err)
	}
	if leaks(e.Error() + e.Hint) {
		t.Errorf("the error holds the token: %v", e)
	}
	return e
}

// leaks reports whether s holds the token or a telling piece of it.
func leaks(s string) bool {
	s = strings.ReplaceAll(s, " ", "")
	for i := 0; i+16 <= len(secret); i++ {
		if strings.Contains(s, secret[i:i+16]) {
			return true
		}
	}
	return false
}

// TestEveryAttemptIsPaidFor: the server drops kept connections after it has read
// a second request. Go's transport would send such a GET again by itself.
func TestEveryAttemptIsPaidFor(t *testing.T) {
	const calls = 40
	dropping := func(t *testing.T, wire *atomic.Int64) *sourcetest.Network {
		n := sourcetest.NewNetwork(t)
		go func() {
			for {
				conn, err := n.Accept()
				if err != nil {
					return
				}
				go func() {
					defer func() { _ = conn.Close() }()
					in := bufio.NewReader(conn)
					for i := range 2 {
						req, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						wire.Add(1)
						if len(req.TransferEncoding) > 0 || req.ContentLength > 0 || req.Header.Get("Content-Length") != "" {
							t.Errorf("a GET with a body: %v %d", req.TransferEncoding, req.ContentLength)
						}
						if i == 0 {
							fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
						}
					}
				}()
			}
		}()
		return n
	}
	t.Run("ours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var wire atomic.Int64
			n := dropping(t, &wire)
			c := connect(t, n.Transport(t), nil)
			failed := 0
			for range calls {
				if _, err := get(t.Context(), c); err != nil {
					failed++
				}
			}
			if wire.Load() != calls || failed != calls/2 {
				t.Errorf("%d requests on the wire for %d grants, %d failed; expected one each and half of them lost", wire.Load(), calls, failed)
			}
		})
	})
	t.Run("control: net/http alone repeats", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var wire atomic.Int64
			n := dropping(t, &wire)
			c := &http.Client{Transport: n.Transport(t)}
			for range calls {
				resp, err := c.Get("http://api.test/")
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			if wire.Load() <= calls {
				t.Errorf("%d requests on the wire for %d calls: this test cannot fail", wire.Load(), calls)
			}
		})
	})
}

// TestRequestOnTheWire: one GET, bare token, the given query; the answer is handed
// on while it arrives, with the marketplace's clock.
func TestRequestOnTheWire(t *testing.T) {
	served(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/base/v1/things" || r.URL.RawQuery != "a=1" || r.Header.Get("Authorization") != secret || r.Header.Get("User-Agent") != "syncd/test" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		fmt.Fprint(w, `{"a":`)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(10 * time.Second)
		fmt.Fprint(w, `1}`)
	}, func(t *testing.T, cfg *apiclient.Config) { cfg.BaseURL += "/base/" }, func(t *testing.T, c *apiclient.Client) {
		var first, all string
		resp, err := c.Do(t.Context(), apiclient.Request{Stream: "s", Path: "/v1/things", Query: url.Values{"a": {"1"}}, Read: func(body io.Reader, date time.Time) error {
			if d := time.Since(date); d < 0 || d >= 2*time.Second {
				t.Errorf("read with a Date %s ago", d)
			}
			buf := make([]byte, 100)
			n, err := body.Read(buf)
			if err != nil {
				return err
			}
			first = string(buf[:n])
			rest, err := io.ReadAll(body)
			all = first + string(rest)
			return err
		}})
		if err != nil || first != `{"a":` || all != `{"a":1}` {
			t.Errorf("got %q and %q, %v", first, all, err)
		}
		if d := time.Since(resp.Date); d < 0 || d >= 2*time.Second {
			t.Errorf("answered with a Date %s ago: the body's time is missing", d)
		}
	})
}

// TestRefusals: what each status means, that redirects are not followed, and
// that an echo of the token goes nowhere.
func TestRefusals(t *testing.T) {
	for status, want := range map[int]struct {
		kind  sources.Kind
		scope sources.Scope
	}{
		301: {sources.Rejected, sources.ScopeRequest}, 302: {sources.Rejected, sources.ScopeRequest}, 307: {sources.Rejected, sources.ScopeRequest},
		400: {sources.Rejected, sources.ScopeRequest}, 404: {sources.Rejected, sources.ScopeRequest}, 422: {sources.Rejected, sources.ScopeRequest},
		401: {sources.Unauthorized, sources.ScopeGroup}, 402: {sources.Payment, sources.ScopeStream}, 403: {sources.Forbidden, sources.ScopeStream},
		408: {sources.Temporary, sources.ScopeRequest}, 425: {sources.Temporary, sources.ScopeRequest},
		429: {sources.RateLimited, sources.ScopeGroup}, 420: {sources.RateLimited, sources.ScopeGroup},
		500: {sources.Temporary, sources.ScopeRequest}, 502: {sources.Temporary, sources.ScopeRequest}, 503: {sources.Temporary, sources.ScopeRequest}, 504: {sources.Temporary, sources.ScopeRequest},
	} {
		for form, body := range map[string]string{
			"echo": secret, "echo cut off": strings.Repeat(" ", 64<<10-40) + secret, "echo in lines": secret[:30] + "\n" + secret[30:70] + "\r\n\t" + secret[70:],
			"bearer": `{"detail":"bad token: Bearer ` + secret + `"}`, "half": "token problem: " + secret[:40] + "...", "html": "<html>\x00\x1b[31m" + secret + "</html>", "empty": "", "garbage": "\xff\xfe" + secret, "long": strings.Repeat("x"+secret, 5000),
		} {
			t.Run(fmt.Sprint(status, " ", form), func(t *testing.T) {
				hits := 0
				served(t, func(w http.ResponseWriter, r *http.Request) {
					if hits++; hits > 1 {
						return // or a client that follows redirects never comes back
					}
					w.Header().Set("Location", "http://evil.test/"+secret)
					w.WriteHeader(status)
					_, _ = io.WriteString(w, body)
				}, nil, func(t *testing.T, c *apiclient.Client) {
					_, err := get(t.Context(), c)
					e := failure(t, err)
					if e.Kind != want.kind || e.Scope != want.scope || e.Status != status || e.Endpoint != "GET /v1/things" || e.Request != asked || e.TooMuch {
						t.Errorf("got %+v, expected %v", e, want)
					}
					if len(e.Error()) > 400 || strings.ContainsAny(e.Error(), "\n\x00\x1b") {
						t.Errorf("not fit for a log line: %q", e.Error())
					}
					if hits != 1 {
						t.Errorf("%d requests, expected 1", hits)
					}
				})
			})
		}
	}
}

// TestClassifierIsNotTrusted: what it says goes through the same washing.
func TestClassifierIsNotTrusted(t *testing.T) {
	served(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, func(t *testing.T, cfg *apiclient.Config) {
		cfg.Classify = func(int, []byte) *sources.Error {
			return &sources.Error{Kind: sources.Forbidden, Scope: sources.ScopeGroup, Err: errors.New("no: " + secret)}
		}
	}, func(t *testing.T, c *apiclient.Client) {
		_, err := get(t.Context(), c)
		if e := failure(t, err); e.Scope != sources.ScopeGroup {
			t.Errorf("got %+v", e)
		}
	})
}

// TestRequestHoldsNoToken: what people may try by hand can be shown to anybody.
func TestRequestHoldsNoToken(t *testing.T) {
	served(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, func(t *testing.T, cfg *apiclient.Config) {
		cfg.BaseURL = "http://user:" + secret + "@api.test/" + secret
	}, func(t *testing.T, c *apiclient.Client) {
		_, err := c.Do(t.Context(), apiclient.Request{Path: "/v1/things", Query: url.Values{"token": {secret}}})
		if e := failure(t, err); leaks(e.Request) || !strings.HasPrefix(e.Request, "/v1/things?token=") || strings.Contains(e.Request, "api.test") {
			t.Errorf("Request is %q", e.Request)
		}
		_, err = c.Do(t.Context(), apiclient.Request{Path: "/v1/things"})
		if e := failure(t, err); e.Request != "/v1/things" {
			t.Errorf("Request is %q", e.Request)
		}
	})
}

// TestRetryHeaders: every form in which a refusal says when to come back.
func TestRetryHeaders(t *testing.T) {
	now := sourcetest.Epoch
	for _, tt := range []struct {
		name, retry, after string
		want               time.Duration // 0: a minute, as if nothing was said
	}{
		{"seconds", "2", "", 2 * time.Second},
		{"hours", "18236", "", 18236 * time.Second},
		{"fraction", "0.5", "", 500 * time.Millisecond},
		{"spaces", " 29 ", "", 29 * time.Second},
		{"Retry-After", "", "120", 120 * time.Second},
		{"the longer of two", "5", "120", 120 * time.Second},
		{"date", "", now.Add(10 * time.Minute).Format(http.TimeFormat), 10*time.Minute - time.Second},
		{"date gone by", "", now.Add(-time.Hour).Format(http.TimeFormat), 0},
		{"huge", "1e300", "", 7 * 24 * time.Hour},
		{"nothing", "", "", 0}, {"zero", "0", "0", 0}, {"negative", "-5", "", 0}, {"garbage", "soon", "later", 0},
		{"infinite", "Inf", "infinity", 0}, {"not a number", "NaN", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &process{}
			served(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Ratelimit-Retry", tt.retry)
				w.Header().Set("Retry-After", tt.after)
				w.WriteHeader(429)
			}, func(t *testing.T, cfg *apiclient.Config) {
				p = start(t, newLedger(), chat, 1)
				cfg.Bucket = p.bucket
			}, func(t *testing.T, c *apiclient.Client) {
				_, err := get(t.Context(), c)
				if e := failure(t, err); tt.want > 0 && !near(time.Until(e.Until), tt.want, 2*time.Second) || tt.want == 0 && !e.Until.IsZero() {
					t.Errorf("Until is in %s, expected %s", time.Until(e.Until), tt.want)
				}
				want := tt.want
				if want == 0 {
					want = time.Minute
				}
				if d := next(t, p); d < want+want/50+1900*time.Millisecond-time.Second || d > want+want/50+3*time.Second {
					t.Errorf("next request in %s, expected %s and slack", d, want)
				}
			})
		})
	}
}

// TestRemainingHeader is read from answers of every status, and garbage is not.
func TestRemainingHeader(t *testing.T) {
	for value, wait := range map[string]bool{"0": true, "1": true, "": false, "x": false, "-1": false, "9": false, "1e400": false, "NaN": false} {
		for _, status := range []int{200, 404, 500} {
			p := &process{}
			served(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Ratelimit-Remaining", value)
				w.WriteHeader(status)
			}, func(t *testing.T, cfg *apiclient.Config) {
				p = start(t, newLedger(), chat, 1)
				cfg.Bucket = p.bucket
			}, func(t *testing.T, c *apiclient.Client) {
				time.Sleep(time.Minute)
				_, _ = get(t.Context(), c)
				began := time.Now()
				acquire(t, p).Answered(apiclient.Answer{Remaining: -1})
				if waited := time.Since(began) > 0; waited != wait {
					t.Errorf("status %d, Remaining %q: waited %v, expected %v", status, value, waited, wait)
				}
			})
		}
	}
}

// TestMalformedAnswersDoNotLeak: net/http quotes what it cannot parse.
func TestMalformedAnswersDoNotLeak(t *testing.T) {
	for _, answer := range []string{"HTTP/1.1 " + secret + "\r\n\r\n", secret + "\r\n\r\n", "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: " + secret + "\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + secret + "\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			n := sourcetest.NewNetwork(t)
			go func() {
				conn, err := n.Accept()
				if err != nil {
					return
				}
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, answer)
				}
			}()
			_, err := get(t.Context(), connect(t, n.Transport(t), nil))
			failure(t, err)
		})
	}
}

// TestNoConnection: errors of dialling and TLS name neither URL nor token.
func TestNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNetwork(t)
		_ = n.Close()
		_, err := c2(t, n, "http://user:"+secret+"@api.test/"+secret)
		if e := failure(t, err); e.Kind != sources.Temporary || !e.Unsent || !strings.Contains(e.Error(), "refused") {
			t.Errorf("got %v", e)
		}
	})
	served(t, func(http.ResponseWriter, *http.Request) {}, nil, func(t *testing.T, _ *apiclient.Client) {
		n := sourcetest.NewNetwork(t)
		go func() {
			conn, err := n.Accept()
			if err == nil {
				buf := make([]byte, 4096)
				_, _ = conn.Read(buf)
				_, _ = io.WriteString(conn, "HTTP/1.1 400 "+secret+"\r\n\r\n")
				_ = conn.Close()
			}
		}()
		_, err := c2(t, n, "https://api.test")
		if e := failure(t, err); e.Kind != sources.Temporary {
			t.Errorf("got %v", e)
		}
	})
}

func c2(t *testing.T, n *sourcetest.Network, base string) (apiclient.Response, error) {
	return get(t.Context(), connect(t, n.Transport(t), func(t *testing.T, cfg *apiclient.Config) { cfg.BaseURL = base }))
}

// TestGrace: a request in flight when the context ends may finish, for a
// bounded time; one that waits for its budget does not leave any more.
func TestGrace(t *testing.T) {
	for _, tt := range []struct {
		takes time.Duration
		ok    bool
	}{{3 * time.Second, true}, {8 * time.Second, false}} {
		served(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(tt.takes)
			_, _ = io.WriteString(w, "{}")
		}, nil, func(t *testing.T, c *apiclient.Client) {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				time.Sleep(2 * time.Second) // the first token came after one
				cancel()
			}()
			began := time.Now()
			_, err := get(ctx, c)
			if (err == nil) != tt.ok {
				t.Errorf("an answer after %s: %v", tt.takes, err)
			}
			if err != nil && !strings.Contains(failure(t, err).Error(), "stopped: the grace period") {
				t.Errorf("got %v, expected it to say that it was stopped", err)
			}
			if d := time.Since(began); d > 2*time.Second+5*time.Second {
				t.Errorf("took %s", d)
			}
			if _, err := get(ctx, c); !errors.Is(err, context.Canceled) {
				t.Errorf("a new request after the end: %v", err)
			}
			time.Sleep(10 * time.Second)
		})
	}
}

// TestBadConfig: what can never work is refused before anything is paid for.
func TestBadConfig(t *testing.T) {
	for name, change := range map[string]func(*apiclient.Config){
		"no host":    func(c *apiclient.Config) { c.BaseURL = "/api" },
		"no URL":     func(c *apiclient.Config) { c.BaseURL = "http://\x00" },
		"line break": func(c *apiclient.Config) { c.Token = secret + "\n" },
		"control":    func(c *apiclient.Config) { c.Token = "\x7f" + secret },
		"not ASCII":  func(c *apiclient.Config) { c.Token = secret + "ё" },
	} {
		cfg := apiclient.Config{Account: "shop", BaseURL: "http://api.test", Token: secret}
		change(&cfg)
		if _, err := apiclient.New(cfg); err == nil || leaks(err.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRequestMetrics: the families that a request moves, by name and label.
func TestRequestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	status := 200
	served(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }, func(t *testing.T, cfg *apiclient.Config) {
		cfg.Metrics = apiclient.NewMetrics(reg)
		cfg.Metrics.Declare("wildberries", "shop", "s", "chat", "/v1/things")
	}, func(t *testing.T, c *apiclient.Client) {
		for _, status = range []int{200, 200, 500, 429} {
			_, _ = get(t.Context(), c)
		}
	})
	got := make(map[string]float64)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			if m.Counter != nil {
				got[name] = m.Counter.GetValue()
			} else {
				got[name] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	want := map[string]float64{
		"syncd_api_requests_total account=shop code=200 stream=s":                        2,
		"syncd_api_requests_total account=shop code=429 stream=s":                        1,
		"syncd_api_requests_total account=shop code=500 stream=s":                        1,
		"syncd_api_throttled_total account=shop budget=chat":                             1,
		"syncd_api_request_duration_seconds endpoint=/v1/things marketplace=wildberries": 4,
		"syncd_budget_wait_seconds budget=chat marketplace=wildberries":                  4,
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("got\n%s\nexpected\n%s", a, b)
	}
}

// TestARefusedTokenStopsThoseThatWait: a 401 stops the API group, and a request
// that was already waiting for its token of the budget is not sent after it.
func TestARefusedTokenStopsThoseThatWait(t *testing.T) {
	var requests atomic.Int64
	served(t, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		time.Sleep(100 * time.Millisecond)
		w.WriteHeader(http.StatusUnauthorized)
	}, nil, func(t *testing.T, c *apiclient.Client) {
		errs := make(chan error, 20)
		for range cap(errs) {
			go func() {
				_, err := get(t.Context(), c)
				errs <- err
			}()
		}
		for range cap(errs) {
			if e := failure(t, <-errs); e.Kind != sources.Unauthorized || e.Status != http.StatusUnauthorized {
				t.Errorf("got %v", e)
			}
		}
		// Those whose turn came before the first answer are on their way.
		if n := requests.Load(); n > 9 {
			t.Errorf("%d of %d requests were sent with a token that was refused", n, cap(errs))
		}
		before := requests.Load()
		if _, err := get(t.Context(), c); failure(t, err).Status != http.StatusUnauthorized || requests.Load() != before+1 {
			t.Errorf("a request that came later was not sent: %v", err)
		}
	})
}
