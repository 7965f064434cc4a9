package yandexmarket

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// ControlPrefix holds the sandbox's own methods, which the marketplace does not have. They need no key: who serves the
// handler binds it to loopback.
const ControlPrefix = "/_sandbox/yandex_market/"

type answer = kit.Answer

// call is a request that has paid, for a method. The business is locked.
type call struct {
	r      *http.Request
	query  url.Values
	body   []byte
	vars   map[string]string // of the path
	rt     route
	market *Market
	b      *Business
	store  *store // of a path with a campaignId
	key    key
	quirks Quirks
	now    time.Time
}

// Sizes of requests.
const (
	maxBody      = 512 << 10      // "request body max 512 KB"
	maxMultipart = 5<<20 + 64<<10 // a file, and what is around it
)

// Handler serves the API, and the sandbox's own control under [ControlPrefix].
func (m *Market) Handler() http.Handler { return http.HandlerFunc(m.serveHTTP) }

func (m *Market) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, ControlPrefix) {
		m.faults.Control(w, r, ControlPrefix, func() any { return m.Stats() })
		return
	}
	quirks := m.currentQuirks()
	now := time.Now()
	w.Header().Set("Connection", "close") // "Keep-Alive is not supported"
	w.Header().Set("Date", now.Add(quirks.ClockSkew).UTC().Format(http.TimeFormat))

	rt, vars, ok, allowed := findRoute(r.Method, r.URL.Path)
	if !ok {
		m.refuseRoute(w, allowed)
		return
	}
	m.count(func(c *counts) { c.methods[rt.method]++ })
	k, text := m.authenticate(r)
	if text != "" {
		m.count(func(c *counts) { c.unauthorized++ })
		kit.Send(w, fail(http.StatusUnauthorized, text))
		return
	}
	c := &call{r: r, query: r.URL.Query(), vars: vars, rt: rt, market: m, b: k.business, key: k, quirks: quirks, now: now}
	entity, refusal := c.entity()
	if refusal != nil {
		kit.Send(w, *refusal)
		return
	}
	m.serveEntity(w, c, entity)
}

func (m *Market) refuseRoute(w http.ResponseWriter, allowed bool) {
	if !allowed {
		m.count(func(c *counts) { c.notAllowed++ })
		kit.Send(w, fail(http.StatusMethodNotAllowed, "Method not allowed"))
		return
	}
	m.count(func(c *counts) { c.notFound++ })
	kit.Send(w, fail(http.StatusNotFound, "Resource not found"))
}

// entity finds out whom the path names, and whether the key may.
func (c *call) entity() (Entity, *answer) {
	if raw, ok := c.vars["campaignId"]; ok {
		id, err := strconv.ParseInt(raw, 10, 64)
		if err != nil {
			return "", refuse(http.StatusBadRequest, badParameter("campaignId", raw))
		}
		owner, known := c.market.byCampaign.Load(id)
		switch {
		case !known:
			return "", refuse(http.StatusNotFound, "Campaign not found")
		case owner != c.b:
			return "", refuse(http.StatusForbidden, accessDenied)
		}
		c.b.mu.Lock()
		c.store = c.b.storeByID(id)
		c.b.mu.Unlock()
		return CampaignEntity(id), nil
	}
	if raw, ok := c.vars["businessId"]; ok {
		id, err := strconv.ParseInt(raw, 10, 64)
		switch {
		case err != nil:
			return "", refuse(http.StatusBadRequest, badParameter("businessId", raw))
		case id != c.b.spec.ID: // another's, or nobody's
			return "", refuse(http.StatusForbidden, accessDenied)
		}
	}
	return c.b.Entity(), nil
}

// serveEntity answers a request of which it is known who pays.
func (m *Market) serveEntity(w http.ResponseWriter, c *call, entity Entity) {
	seller := strconv.FormatInt(c.b.spec.ID, 10)
	drain := m.faults.Take(seller, c.r.URL.Path, ofBudget)
	pay := payment{
		entity: entity, method: c.rt.method, limit: m.limitOf(c.rt, c.b), documented: c.rt.limit.none, windows: c.quirks.windows(),
		now: c.now, refusedPay: c.quirks.RefusedPay,
	}
	crowded := drain != nil && drain.Variant == "parallel"
	leave, ok := func() {}, !crowded
	if ok {
		leave, ok = c.b.enter(pay, m.parallel)
	}
	if !ok {
		c.head(w, pay, c.b.look(pay), false)()
		kit.Send(w, fail(statusCalm, fmt.Sprintf("Hit rate limit of %d parallel requests for %s", m.parallel, entity)))
		return
	}
	defer leave()
	slot := &slotWriter{ResponseWriter: w, leave: leave, tell: func() {}}
	w = slot
	if drain != nil {
		pay.drain, pay.drainFor = true, drain.Delay
	}
	left, paid := c.b.pay(pay)
	if !paid {
		c.refusePay(slot, pay, left, drain)
		return
	}
	slot.tell = c.head(w, pay, left, false)
	wait(c.r, c.quirks.Latency)
	fault := m.faults.Take(seller, c.r.URL.Path, func(k kit.FaultKind) bool { return !ofBudget(k) })
	if fault != nil && m.spoilBefore(w, c, fault) {
		return
	}
	a := c.answer(w)
	wait(c.r, c.quirks.Transit)
	if fault != nil {
		m.spoilAnswer(w, c, fault, a)
		return
	}
	kit.Send(w, a)
}

// refusePay answers a request for which there is no budget.
func (c *call) refusePay(w *slotWriter, pay payment, left reading, drain *kit.Fault) {
	variant := ""
	if drain != nil {
		variant = drain.Variant
	}
	if variant != "bare" {
		w.tell = c.head(w, pay, left, true)
	}
	status := statusCalm
	if drain != nil && drain.Kind == Fault429 {
		status = http.StatusTooManyRequests
	}
	kit.Send(w, fail(status, fmt.Sprintf("Hit rate limit of '%d' requests per '%s' for resource '%s' for %s",
		left.limit, pay.windows.word(), pay.method, pay.entity)))
}

// head prepares the headers about the budget. told is to be called when they leave: from then on the client can know.
func (c *call) head(w http.ResponseWriter, pay payment, left reading, refused bool) (told func()) {
	if c.quirks.NoLimitHeaders {
		return func() {}
	}
	remaining := min(left.limit, left.remaining+c.quirks.RemainingLag)
	h := w.Header()
	h.Set("X-RateLimit-Resource-Limit", strconv.Itoa(left.limit))
	h.Set("X-RateLimit-Resource-Remaining", strconv.Itoa(remaining))
	until := left.until.Add(c.quirks.ClockSkew + time.Second - 1).Truncate(time.Second) // not before it is true
	h.Set("X-RateLimit-Resource-Until", until.UTC().Format(http.TimeFormat))
	return func() { c.b.tell(pay, left, time.Now(), refused) }
}

// answer lets the method do its work.
func (c *call) answer(w http.ResponseWriter) answer {
	if !c.key.may(c.rt) {
		return fail(http.StatusForbidden, "Token does not have any of the scopes to access the API method")
	}
	if a := c.readBody(w); a != nil {
		return *a
	}
	c.now = time.Now()
	c.b.lock(c.now)
	defer c.b.mu.Unlock()
	if text := c.b.disabled(c.store); text != "" && !c.rt.open {
		return fail(http.StatusForbidden, text)
	}
	return c.rt.serve(c)
}

func (c *call) readBody(w http.ResponseWriter) *answer {
	limit, want := int64(maxBody), kit.TypeJSON
	if c.rt.multipart {
		limit, want = maxMultipart, "multipart/form-data"
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, c.r.Body, limit))
	if err != nil {
		return refuse(http.StatusBadRequest, "The request is too big")
	}
	c.body = body
	if len(body) > 0 {
		if kind, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type")); kind != want {
			return refuse(http.StatusUnsupportedMediaType, fmt.Sprintf("Content type '%s' not supported", c.r.Header.Get("Content-Type")))
		}
	}
	return nil
}

// decode reads the body into v, with the names of its fields as they are written. Without a body it is refused.
func (c *call) decode(v any) *answer {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return refuse(http.StatusBadRequest, "Required request body is missing")
	}
	return c.decodeOptional(v)
}

// decodeOptional leaves v as it is where there is no body.
func (c *call) decodeOptional(v any) *answer {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.body, v); err != nil {
		return refuse(http.StatusBadRequest, "Cannot parse request body")
	}
	return nil
}

// id reads a variable of the path, or a parameter of the query, that is an id.
func (c *call) id(name string) (int64, *answer) {
	raw, inPath := c.vars[name]
	if !inPath {
		if raw = c.query.Get(name); raw == "" {
			return 0, refuse(http.StatusBadRequest, fmt.Sprintf("Required parameter '%s' is missing", name))
		}
	}
	id, err := strconv.ParseInt(raw, 10, 64)
	if err != nil || id < 1 {
		return 0, refuse(http.StatusBadRequest, badParameter(name, raw))
	}
	return id, nil
}

const accessDenied = "Access denied"

func badParameter(name, value string) string {
	return fmt.Sprintf("Parameter '%s' has invalid value '%s'", name, value)
}

// statusCalm is 420, which the documents call Method Failure.
const statusCalm = 420

// codes are the codes of errors. Only UNAUTHORIZED is documented; the others are the names of the statuses.
var codes = map[int]string{
	http.StatusBadRequest: "BAD_REQUEST", http.StatusUnauthorized: "UNAUTHORIZED", http.StatusForbidden: "FORBIDDEN",
	http.StatusNotFound: "NOT_FOUND", http.StatusMethodNotAllowed: "METHOD_NOT_ALLOWED",
	http.StatusUnsupportedMediaType: "UNSUPPORTED_MEDIA_TYPE", statusCalm: "METHOD_FAILURE", http.StatusLocked: "LOCKED",
	http.StatusTooManyRequests: "TOO_MANY_REQUESTS", 499: "CLIENT_CLOSED_REQUEST",
	http.StatusInternalServerError: "INTERNAL_SERVER_ERROR", http.StatusBadGateway: "BAD_GATEWAY",
	http.StatusServiceUnavailable: "SERVICE_UNAVAILABLE", http.StatusGatewayTimeout: "GATEWAY_TIMEOUT",
}

// okAnswer is the envelope of nearly all answers, around a result.
func okAnswer(result any) answer {
	return kit.JSON(http.StatusOK, kit.TypeJSON, struct {
		Status string `json:"status"`
		Result any    `json:"result"`
	}{"OK", result})
}

// emptyAnswer is what writes are answered that return nothing.
func emptyAnswer() answer {
	return answer{Status: http.StatusOK, ContentType: kit.TypeJSON, Body: [][]byte{[]byte(`{"status":"OK"}`)}}
}

// fail is an error.
func fail(status int, text string) answer {
	type apiError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	return kit.JSON(status, kit.TypeJSON, struct {
		Status string     `json:"status"`
		Errors []apiError `json:"errors"`
	}{"ERROR", []apiError{{codes[status], text}}})
}

// refuse is fail for those who return an answer only if there is something wrong.
func refuse(status int, text string) *answer {
	a := fail(status, text)
	return &a
}

// wait holds a request up, unless the client goes away.
func wait(r *http.Request, d time.Duration) {
	if d <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), d)
	defer cancel()
	<-ctx.Done()
}

// slotWriter gives the slot of a request back just before the client can know that its answer is complete: a client that
// sends the next request at once has not had one too many.
type slotWriter struct {
	http.ResponseWriter
	leave func()
	tell  func() // the headers leave
	left  int    // bytes of the body
}

func (w *slotWriter) WriteHeader(status int) {
	w.tell()
	w.left, _ = strconv.Atoi(w.Header().Get("Content-Length"))
	if w.left == 0 {
		w.leave()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *slotWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left <= 0 {
		w.leave()
	}
	return w.ResponseWriter.Write(p)
}

// FlushError lets [http.ResponseController] send what there is.
func (w *slotWriter) FlushError() error { return http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack is how a fault closes the connection.
func (w *slotWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.leave()
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
