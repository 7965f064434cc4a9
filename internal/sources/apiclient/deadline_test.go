package apiclient_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

// The time that a request waits for one of the few connections to a host says
// nothing about the marketplace, which has its own time to answer.
func TestWaitingForAConnectionIsNoSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNetwork(t)
		n.Serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Second) }))
		transport := n.Transport(t)
		transport.MaxConnsPerHost = 1
		var all sync.WaitGroup
		var worked, unsent atomic.Int32
		for range 3 {
			c := connect(t, transport, func(_ *testing.T, cfg *apiclient.Config) { cfg.Timeout, cfg.MaxBody = 0, 0 })
			all.Go(func() {
				switch _, err := get(t.Context(), c); {
				case err == nil:
					worked.Add(1)
				case failure(t, err).Unsent:
					unsent.Add(1)
				}
			})
		}
		all.Wait()
		if worked.Load() != 2 || unsent.Load() != 1 {
			t.Errorf("%d worked, %d never left: want the first, the one that waited 20 s, and none that waited 40 s", worked.Load(), unsent.Load())
		}
	})
}

// A large answer waits for its turn, as long as that takes; a small one does not
// ask for it. What of it counts is said when the request leaves, and once.
func TestLargeAnswersTakeTurns(t *testing.T) {
	for _, test := range []struct {
		name  string
		size  int
		turns int32
	}{{"small", sources.LargeAnswer - 1, 0}, {"large", 4 * sources.LargeAnswer, 1}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := sourcetest.NewNetwork(t)
				var sending, turns, served atomic.Int32
				n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					if served.Add(1); sending.Load() != 1 {
						t.Error("the request came before it was said to leave")
					}
					_, _ = w.Write(make([]byte, test.size))
				}))
				c := connect(t, n.Transport(t), func(_ *testing.T, cfg *apiclient.Config) { cfg.Timeout, cfg.MaxBody = 0, 0 })
				got := int64(0)
				_, err := c.Do(t.Context(), apiclient.Request{
					Stream: "s", Walk: sources.News, Path: "/",
					Sending: func() { sending.Add(1) },
					Large: func(context.Context) error {
						turns.Add(1)
						time.Sleep(10 * time.Minute)
						return nil
					},
					Read: func(body io.Reader, _ time.Time) (err error) {
						got, err = io.Copy(io.Discard, body)
						return err
					},
				})
				if err != nil || got != int64(test.size) || turns.Load() != test.turns || sending.Load() != 1 {
					t.Errorf("%d of %d bytes with %d turns, want %d, said to leave %d times: %v", got, test.size, turns.Load(), test.turns, sending.Load(), err)
				}
			})
		})
	}
}

// Who is not given his turn gives up with his context.
func TestNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNetwork(t)
		n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 4*sources.LargeAnswer)) }))
		c := connect(t, n.Transport(t), func(_ *testing.T, cfg *apiclient.Config) { cfg.Timeout, cfg.MaxBody, cfg.Grace = 0, 0, time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := c.Do(ctx, apiclient.Request{
			Stream: "s", Walk: sources.News, Path: "/",
			Large: func(ctx context.Context) error {
				<-ctx.Done()
				return context.Cause(ctx)
			},
			Read: func(body io.Reader, _ time.Time) error {
				_, err := io.Copy(io.Discard, body)
				return err
			},
		})
		if e := failure(t, err); e.Kind != sources.Temporary || time.Since(begin) > time.Minute+2*time.Second {
			t.Errorf("after %s: %v", time.Since(begin), e)
		}
	})
}
