package sink_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

func TestWebhookContract(t *testing.T) {
	for _, batch := range []bool{false, true} {
		t.Run(fmt.Sprintf("batch=%t", batch), func(t *testing.T) { testContract(t, batch) })
	}
}

func testContract(t *testing.T, batch bool) {
	const headerSecret = "tok-header"
	sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
		var mu sync.Mutex
		var received [][]byte
		var asides []sink.Aside
		var broken, stalled atomic.Bool
		reached, release := make(chan struct{}, 1), make(chan struct{})
		cfg := sink.WebhookConfig{Secrets: []string{testSecret}, Headers: map[string]string{"X-Api-Key": headerSecret}, Batch: batch}
		w := inBubble(t, cfg, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			if stalled.Load() {
				reached <- struct{}{}
				<-release
			}
			events := []json.RawMessage{body}
			if batch {
				if err := json.Unmarshal(body, &events); err != nil {
					t.Errorf("%v: %s", err, body)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				received = append(received, e)
				asides = append(asides, asideOf(t, r.Header))
			}
			if broken.Load() {
				w.WriteHeader(http.StatusInternalServerError)
				fmt.Fprint(w, r.Header["X-Api-Key"], testSecret)
			}
		}, nil)
		return &sinktest.Harness{
			Sink:    w,
			Batch:   batch,
			Secrets: []string{testSecret, headerSecret},
			Received: func(*testing.T) [][]byte {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(received)
			},
			Asides: func(*testing.T) []sink.Aside {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(asides)
			},
			Break:  func(*testing.T) { broken.Store(true) },
			Repair: func(*testing.T) { broken.Store(false) },
			Stall: func(*testing.T) (<-chan struct{}, func()) {
				stalled.Store(true)
				return reached, func() { stalled.Store(false); close(release) }
			},
		}
	})
}

// asideOf is what a request's headers say.
func asideOf(t *testing.T, h http.Header) sink.Aside {
	replay, retried := h["Syncd-Replay"], h["Syncd-Retried"]
	switch {
	case replay == nil && retried == nil:
		return 0
	case slices.Equal(replay, []string{"true"}) && retried == nil:
		return sink.Replayed
	case slices.Equal(retried, []string{"true"}) && replay == nil:
		return sink.RetriedDeadLetter
	}
	t.Errorf("syncd-replay: %q, syncd-retried: %q", replay, retried)
	return -1
}
