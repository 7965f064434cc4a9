package sandbox

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// route is one method of the API.
type route struct {
	group Group
	// method tells the buckets of a group apart where methods have their own ([ChatBucketPerMethod]).
	method string
	scope  uint64
	// write is the opposite of the document's x-readonly-method.
	write bool
	// serviceOnly refuses all but Service tokens (x-token-types).
	serviceOnly bool
	serve       func(*call) answer
}

// routes maps "METHOD /path" to a method. Everything else is the documented 404.
var routes = map[string]route{
	"GET /api/v1/seller/events":              {group: GroupChat, method: "events", scope: ScopeChat, serve: serveEvents},
	"GET /api/v1/seller/chats":               {group: GroupChat, method: "chats", scope: ScopeChat, serve: serveChats},
	"POST /api/v1/seller/message":            {group: GroupChat, method: "message", scope: ScopeChat, write: true, serve: serveMessage},
	"GET /api/v1/questions":                  {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveQuestions},
	"PATCH /api/v1/questions":                {group: GroupFeedbacks, scope: ScopeFeedbacks, write: true, serve: servePatchQuestion},
	"GET /api/v1/question":                   {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveQuestion},
	"GET /api/v1/questions/count":            {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveQuestionCount},
	"GET /api/v1/questions/count-unanswered": {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveUnansweredCount},
	"GET /api/v1/feedbacks":                  {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveFeedbacks},
	"GET /api/v1/feedbacks/archive":          {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveArchive},
	"GET /api/v1/feedback":                   {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveFeedback},
	"GET /api/v1/feedbacks/count":            {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveFeedbackCount},
	"GET /api/v1/feedbacks/count-unanswered": {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveOpenFeedbackCount},
	"POST /api/v1/feedbacks/answer":          {group: GroupFeedbacks, scope: ScopeFeedbacks, write: true, serve: serveReply},
	"PATCH /api/v1/feedbacks/answer":         {group: GroupFeedbacks, scope: ScopeFeedbacks, write: true, serve: serveEditReply},
	"POST /api/v1/feedbacks/order/return":    {group: GroupFeedbacks, scope: ScopeFeedbacks, write: true, serve: serveReturn},
	"GET /api/feedbacks/v1/pins":             {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: servePins},
	"POST /api/feedbacks/v1/pins":            {group: GroupFeedbacks, scope: ScopeFeedbacks, write: true, serve: servePin},
	"DELETE /api/feedbacks/v1/pins":          {group: GroupFeedbacks, scope: ScopeFeedbacks, write: true, serve: serveUnpin},
	"GET /api/feedbacks/v1/pins/count":       {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: servePinCount},
	"GET /api/feedbacks/v1/pins/limits":      {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: servePinLimits},
	"GET /api/common/v1/rating":              {group: GroupRating, scope: ScopeFeedbacks, serviceOnly: true, serve: serveRating},
	"GET /api/v1/new-feedbacks-questions":    {group: GroupFeedbacks, scope: ScopeFeedbacks, serve: serveNews},
	"GET /api/v1/seller/download/{id}":       {group: GroupChat, method: "download", scope: ScopeChat, serve: serveDownload},
	"GET /api/v1/claims":                     {group: GroupReturns, method: "claims", scope: ScopeReturns, serve: serveClaims},
	"PATCH /api/v1/claim":                    {group: GroupReturns, method: "claim", scope: ScopeReturns, write: true, serve: servePatchClaim},
	"GET /ping":                              {group: GroupPing, serve: servePing},
}

// call is one authenticated and paid request on its way through a route.
type call struct {
	r       *http.Request
	query   url.Values
	sandbox *Sandbox
	world   *World
	quirks  Quirks
	now     time.Time
}

type answer = kit.Answer

// Handler serves the whole marketplace: all API hosts, and the sandbox's own control under /_sandbox/.
func (s *Sandbox) Handler() http.Handler { return http.HandlerFunc(s.serveHTTP) }

func (s *Sandbox) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, controlPrefix) {
		s.faults.Control(w, r, controlPrefix, func() any { return s.Stats() })
		return
	}
	now := time.Now()
	quirks := s.currentQuirks()
	if quirks.ProblemsAsJSON {
		w = plainProblems{w}
	}
	name := routeName(r)
	rt, ok := routes[name]
	if !ok {
		s.count(func(c *counts) { c.notFound++ })
		kit.Send(w, s.pathNotFound(now))
		return
	}
	s.count(func(c *counts) { c.paths[name]++ })

	token, world, refusal := s.authenticate(r, now)
	if refusal != nil {
		s.count(func(c *counts) { c.unauthorized++ })
		kit.Send(w, *refusal)
		return
	}
	drain := s.faults.Take(world.seller.ID, r.URL.Path, ofBudget)
	remaining, limited := world.pay(payment{
		key:       bucketKey{group: s.bucketOf(rt, token.kind()), kind: token.kind()},
		limit:     limitOf(rt, token.kind()),
		name:      name,
		now:       now,
		drain:     drain,
		roundDown: quirks.RetryRoundsDown,
	})
	if limited != nil {
		kit.Send(w, s.tooManyRequests(now, *limited, world.seller.ID, drain))
		return
	}
	w.Header().Set("X-Ratelimit-Remaining", strconv.Itoa(remaining))

	switch {
	case rt.serviceOnly && token.kind() != kindService:
		kit.Send(w, s.wrongType(token.kind(), now))
		return
	case !token.allows(rt.scope):
		kit.Send(w, s.denied(rt.group, quirks.Denial, now))
		return
	case rt.write && token.S&scopeReadOnly != 0:
		kit.Send(w, s.readOnly(rt.group, quirks.Denial, now))
		return
	}
	fault := s.faults.Take(world.seller.ID, r.URL.Path, func(k FaultKind) bool { return !ofBudget(k) })
	if fault != nil && s.spoilBefore(w, r, rt.group, fault, quirks.Denial, now) {
		return
	}
	a := rt.serve(&call{r: r, query: r.URL.Query(), sandbox: s, world: world, quirks: quirks, now: now})
	if fault != nil {
		spoilAnswer(w, r, rt.group, fault, a)
		return
	}
	kit.Send(w, a)
}

// authenticate finds out whose request it is. A request that belongs to nobody pays nothing: there is no bucket.
func (s *Sandbox) authenticate(r *http.Request, now time.Time) (claims, *World, *answer) {
	token := r.Header.Get("Authorization")
	if raw, ok := strings.CutPrefix(token, "Bearer "); ok {
		// The documents say the token as it is; clients that send the prefix are known to work, so it is only counted.
		s.count(func(c *counts) { c.bearer++ })
		token = raw
	}
	if token == "" {
		a := s.unauthorized("empty Authorization header", now)
		return claims{}, nil, &a
	}
	c, err := s.verify(token, now)
	if err != nil {
		a := s.unauthorized("token problem; "+err.Error(), now)
		return claims{}, nil, &a
	}
	world := s.byID[c.Sid]
	if world == nil {
		a := s.unauthorized("token problem; token is withdrawn", now)
		return claims{}, nil, &a
	}
	return c, world, nil
}

// bucketOf: where Base tokens download at another pace than that of the host, they must do so from a bucket of its own.
func (s *Sandbox) bucketOf(rt route, kind tokenKind) Group {
	own := rt.group + "/" + Group(rt.method)
	if rt.method != "" && s.chatBuckets == ChatBucketPerMethod || own == GroupDownload && kind == kindBase {
		return own
	}
	return rt.group
}

func limitOf(rt route, kind tokenKind) Limit {
	l, ok := limits[rt.group+"/"+Group(rt.method)]
	if !ok {
		l = limits[rt.group]
	}
	if kind == kindBase {
		return l.base
	}
	return l.full
}

// servePing answers the connection check (general document, 2026-07-23). Calling it by program is forbidden by its text;
// [Stats.Pings] tells who does.
func servePing(c *call) answer {
	c.sandbox.count(func(n *counts) { n.pings++ })
	return kit.JSON(http.StatusOK, typeJSON, struct {
		TS     string
		Status string
	}{c.now.In(moscow).Format(time.RFC3339), "OK"})
}

// moscow is the zone of the marketplace's own clocks. A fixed one: Moscow has had no other since 2014, and no zone database
// is needed.
var moscow = time.FixedZone("MSK", 3*60*60)
