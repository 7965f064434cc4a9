package sandbox

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// ViolationKind says what a refused request did wrong.
type ViolationKind string

const (
	// ViolationBudget: the client itself had spent the documented bucket.
	ViolationBudget ViolationKind = "budget"
	// ViolationEarly: others had spent the bucket, an earlier 429 had said how long to wait, and the client did not.
	ViolationEarly ViolationKind = "early"
)

// Violation is one request that a well-behaved client would not have sent.
type Violation struct {
	Kind   ViolationKind `json:"kind"`
	Seller string        `json:"seller"`
	Group  Group         `json:"group"`
	Time   time.Time     `json:"time"`
	// Request is the method and path.
	Request string `json:"request"`
}

// keptViolations bounds the list of each world; the counters go on.
const keptViolations = 100

// Stats is what the sandbox has seen since it was made.
type Stats struct {
	// Requests counts the requests of each method, as "GET /api/v1/questions", whatever their answer was.
	Requests map[string]int64 `json:"requests"`
	// NotFound counts requests to anything else.
	NotFound int64 `json:"not_found"`
	// Unauthorized counts requests that belong to no seller: no, broken, forged, expired or withdrawn token.
	Unauthorized int64 `json:"unauthorized"`
	// BearerPrefixes counts tokens sent as "Bearer …", which the documents do not have.
	BearerPrefixes int64 `json:"bearer_prefixes"`
	// Pings counts answered calls of /ping, which programs must not use.
	Pings int64 `json:"pings"`
	// Violations is the sum over all buckets.
	Violations int64 `json:"violations"`
	// Buckets has every bucket that was ever asked, by seller in the order of the configuration, then group and type.
	Buckets []BucketStats `json:"buckets"`
	// Recent are the last violations of each seller, oldest first.
	Recent []Violation `json:"recent_violations"`
}

// BucketStats is what happened to one bucket.
type BucketStats struct {
	Seller     string `json:"seller"`
	SellerName string `json:"seller_name"`
	Group      Group  `json:"group"`
	// TokenType is base (also for Test and unknown types), personal or service.
	TokenType string `json:"token_type"`
	Limit     Limit  `json:"limit"`
	// Requests counts all that arrived, Refused those answered 429, Violations those that were the client's fault.
	Requests   int64 `json:"requests"`
	Refused    int64 `json:"refused"`
	Violations int64 `json:"violations"`
	// LowestRemaining is the fewest whole tokens that the client's own spending ever left.
	LowestRemaining int `json:"lowest_remaining"`
	// ClosestCall is the shortest time that a token had been there when a request took it: how near the client came to a
	// violation. Nil before the second request. It also tells something where the burst is 1 and LowestRemaining is
	// always 0.
	ClosestCall *time.Duration `json:"closest_call_ns"`
}

// counts are the numbers that belong to no seller. The Sandbox's mutex guards them.
type counts struct {
	paths                                 map[string]int64
	notFound, unauthorized, bearer, pings int64
}

func (s *Sandbox) count(f func(*counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.counts)
}

// Stats returns a copy of all counters.
func (s *Sandbox) Stats() Stats {
	s.mu.Lock()
	out := Stats{
		Requests: maps.Clone(s.counts.paths), NotFound: s.counts.notFound, Unauthorized: s.counts.unauthorized,
		BearerPrefixes: s.counts.bearer, Pings: s.counts.pings,
		Buckets: []BucketStats{}, Recent: []Violation{},
	}
	s.mu.Unlock()
	for _, w := range s.worlds {
		buckets, violations := w.accounts()
		for _, b := range buckets {
			out.Violations += b.Violations
		}
		out.Buckets = append(out.Buckets, buckets...)
		out.Recent = append(out.Recent, violations...)
	}
	slices.SortStableFunc(out.Recent, func(a, b Violation) int { return a.Time.Compare(b.Time) })
	return out
}

// accounts copies the counters of a world's buckets.
func (w *World) accounts() ([]BucketStats, []Violation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []BucketStats
	for key, b := range w.buckets {
		out = append(out, BucketStats{
			Seller: w.seller.ID, SellerName: w.seller.Name, Group: key.group, TokenType: string(key.kind), Limit: b.limit,
			Requests: b.requests, Refused: b.refused, Violations: b.violations,
			LowestRemaining: b.lowest, ClosestCall: b.closest,
		})
	}
	slices.SortFunc(out, func(a, b BucketStats) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.TokenType, b.TokenType))
	})
	return out, slices.Clone(w.violations)
}
