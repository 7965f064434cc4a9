package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"syncd/internal/sandbox"
	"syncd/internal/sandbox/kit"
)

// wire is what lies between the processes and the marketplace. It delays requests
// and answers, each by another time, so that they overtake each other; what has
// left a process arrives, be it alive or not. It keeps what really was sent.
type wire struct {
	handler http.Handler
	slow    float64       // share of messages that take up to most; 0: none overtakes another
	most    time.Duration // less than the time for which a budget of a new process stays shut
	came    func()        // called with every request that arrives
	// read is what an answer that is 200 shows of items, and shows to be nothing.
	read func(r *http.Request, body []byte) []shownItem
	// answered is called with every answer. Nil: nobody wants to know.
	answered func(r *http.Request, status int, body []byte)

	mu       sync.Mutex
	r        *rand.Rand
	shown    map[itemKey]map[string]bool // every state of an item that an answer held
	refused  map[string]notBefore        // the last one that a process heard of, by bucket
	pages    map[string]bool             // answers whose entries are noted
	early    []string                    // requests that knew better
	requests int
}

// shownItem is an item as an answer shows it.
type shownItem struct {
	kind kit.Kind
	id   string // as the journal has it
	raw  json.RawMessage
}

// itemKey names an item of a seller.
type itemKey struct {
	seller string
	kind   kit.Kind
	id     string
}

// notBefore is a 429 that said how long to wait.
type notBefore struct {
	by    *life
	heard time.Time // by the process
	until time.Time
}

// Headers that only this wire has: who sent a request, for whose bucket, when, and
// when an answer was written.
const (
	headerBucket  = "X-Wire-Bucket"
	headerSent    = "X-Wire-Sent"
	headerWritten = "X-Wire-Written"
)

func newWire(handler http.Handler, r *rand.Rand, slow float64, most time.Duration, read func(r *http.Request, body []byte) []shownItem) *wire {
	return &wire{handler: handler, slow: slow, most: most, read: read, r: r, shown: make(map[itemKey]map[string]bool), pages: make(map[string]bool), refused: make(map[string]notBefore)}
}

func (w *wire) delay() time.Duration {
	const least = 10 * time.Millisecond // alike for all, so that nothing overtakes where nothing is slow
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.r.Float64() < w.slow {
		return least + time.Duration(w.r.Int64N(int64(w.most-least)))
	}
	return least
}

// ServeHTTP is the far end of the way there.
func (w *wire) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	time.Sleep(w.delay())
	w.came()
	w.arrived(r)
	copying := &copyingWriter{ResponseWriter: rw, wire: w}
	defer func() { // after a fault that panics, too
		body := copying.body.Bytes()
		if rw.Header().Get("Content-Encoding") == "gzip" {
			body = unzipped(body)
		}
		if w.answered != nil {
			w.answered(r, copying.status, body)
		}
		if copying.status == http.StatusOK {
			w.keep(r, body)
		}
	}()
	w.handler.ServeHTTP(copying, r)
}

// unzipped is what a body holds; what cannot be read holds nothing.
func unzipped(body []byte) []byte {
	zip, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil
	}
	out, err := io.ReadAll(zip)
	if err != nil {
		return nil
	}
	return out
}

// arrived holds a request against the last notBefore of its bucket.
func (w *wire) arrived(r *http.Request) {
	ns, _ := strconv.ParseInt(r.Header.Get(headerSent), 10, 64)
	sent, now := time.Unix(0, ns), time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	last, ok := w.refused[r.Header.Get(headerBucket)]
	// A process that died in the moment in which it heard could tell nobody.
	if ok && sent.After(last.heard) && now.Before(last.until) && !last.by.diedWithin(last.heard, time.Second) {
		w.early = append(w.early, fmt.Sprintf("%s at %s, told at %s to wait until %s", r.URL.Path, now.Format(time.StampMilli),
			last.heard.Format(time.StampMilli), last.until.Format(time.StampMilli)))
	}
}

// keep notes the entries of an answer.
func (w *wire) keep(r *http.Request, body []byte) {
	seller := sellerOf(r.Header.Get(headerBucket))
	w.mu.Lock()
	page := seller + r.URL.Path + r.URL.Query().Get("chatId") + string(body)
	known := w.pages[page]
	w.pages[page] = true
	w.mu.Unlock()
	if known {
		return
	}
	entries := w.read(r, bytes.TrimPrefix(body, []byte("\ufeff")))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range entries {
		key := itemKey{seller, e.kind, e.id}
		if w.shown[key] == nil {
			w.shown[key] = make(map[string]bool)
		}
		w.shown[key][string(e.raw)] = true
	}
}

// wasShown says whether an answer has held an item like this.
func (w *wire) wasShown(key itemKey, item []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shown[key][string(item)]
}

// entriesOf are the entries of the list that a method answers with. An answer that
// was cut off has none that anybody could trust.
func entriesOf(r *http.Request, body []byte) (out []shownItem) {
	kind, entries := listOf(r.URL.Path, body)
	for _, raw := range entries {
		out = append(out, shownItem{kind, idOf(kind, raw), raw})
	}
	return out
}

func listOf(path string, body []byte) (sandbox.Kind, []json.RawMessage) {
	var a struct {
		Result json.RawMessage
		Data   json.RawMessage
		Claims []json.RawMessage
	}
	if json.Unmarshal(body, &a) != nil {
		return "", nil
	}
	var list []json.RawMessage
	var of struct{ Events, Questions, Feedbacks []json.RawMessage }
	switch path {
	case "/api/v1/seller/events":
		_ = json.Unmarshal(a.Result, &of) // null where an error is said
		return sandbox.KindEvent, of.Events
	case "/api/v1/seller/chats":
		_ = json.Unmarshal(a.Result, &list)
		return sandbox.KindChat, list
	case "/api/v1/questions":
		_ = json.Unmarshal(a.Data, &of)
		return sandbox.KindQuestion, of.Questions
	case "/api/v1/feedbacks", "/api/v1/feedbacks/archive":
		_ = json.Unmarshal(a.Data, &of)
		return sandbox.KindFeedback, of.Feedbacks
	case "/api/feedbacks/v1/pins":
		_ = json.Unmarshal(a.Data, &list)
		return sandbox.KindPin, list
	case "/api/v1/claims":
		return sandbox.KindClaim, a.Claims
	}
	return "", nil
}

// idOf is an item's id as the journal has it.
func idOf(kind sandbox.Kind, raw []byte) string {
	var f struct {
		ChatID  string `json:"chatID"`
		EventID string `json:"eventID"`
		ID      string `json:"id"`
		PinID   int    `json:"pinId"`
	}
	_ = json.Unmarshal(raw, &f)
	switch kind {
	case sandbox.KindEvent:
		return f.ChatID + "/" + f.EventID
	case sandbox.KindChat:
		return f.ChatID
	case sandbox.KindPin:
		return strconv.Itoa(f.PinID)
	}
	return f.ID
}

// copyingWriter keeps a copy of an answer, and is the far end of the way back.
type copyingWriter struct {
	http.ResponseWriter
	wire   *wire
	status int
	body   bytes.Buffer
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *copyingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *copyingWriter) WriteHeader(status int) {
	w.status = status
	w.Header().Set(headerWritten, strconv.FormatInt(time.Now().UnixNano(), 10))
	time.Sleep(w.wire.delay())
	w.ResponseWriter.WriteHeader(status)
}

func (w *copyingWriter) Write(p []byte) (int, error) {
	w.body.Write(p)
	return w.ResponseWriter.Write(p)
}

var errDead = errors.New("the process is dead")

// RoundTrip is the near end of the wire: each request says who sends it, and what
// was refused is remembered.
func (p *life) RoundTrip(req *http.Request) (*http.Response, error) {
	if p.dead() {
		return nil, errDead
	}
	bucket := p.rig.bucketOf(req)
	req = req.Clone(req.Context())
	req.Header.Set(headerBucket, bucket)
	req.Header.Set(headerSent, strconv.FormatInt(time.Now().UnixNano(), 10))
	p.rig.log.Debug("request", "account", p.rig.owner(req), "url", req.URL.RequestURI())
	resp, err := p.transport.RoundTrip(req)
	if err == nil && p.rig.heard != nil {
		p.rig.heard(p, req, resp)
	}
	if err != nil || resp.StatusCode != http.StatusTooManyRequests {
		return resp, err
	}
	if retry, err := strconv.Atoi(resp.Header.Get("X-Ratelimit-Retry")); err == nil {
		ns, _ := strconv.ParseInt(resp.Header.Get(headerWritten), 10, 64)
		w := p.rig.wire
		w.mu.Lock()
		w.refused[bucket] = notBefore{by: p, heard: time.Now(), until: time.Unix(0, ns).Add(time.Duration(retry) * time.Second)}
		w.mu.Unlock()
	}
	return resp, nil
}
