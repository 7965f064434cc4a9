package yandexmarket

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// ViolationKind says what a refused request did wrong.
type ViolationKind string

const (
	// ViolationBudget: the client itself had spent what the window allows.
	ViolationBudget ViolationKind = "budget"
	// ViolationEarly: others had spent it, an earlier 420 had said until when, and the client did not wait.
	ViolationEarly ViolationKind = "early"
	// ViolationParallel: the client itself had as many requests under way as an entity may have.
	ViolationParallel ViolationKind = "parallel"
)

// Violation is one request that a well-behaved client would not have sent.
type Violation struct {
	Kind   ViolationKind `json:"kind"`
	Entity Entity        `json:"entity"`
	Method Method        `json:"method"`
	Time   time.Time     `json:"time"`
}

// keptViolations bounds the list of each business; the counters go on.
const keptViolations = 100

// Stats is what the marketplace has seen since it was made.
type Stats struct {
	// Requests counts the requests of each method, whatever their answer was.
	Requests map[Method]int64 `json:"requests"`
	// NotFound counts requests to paths that there are not, NotAllowed those to paths with other methods.
	NotFound   int64 `json:"not_found"`
	NotAllowed int64 `json:"not_allowed"`
	// Unauthorized counts requests that belong to no business: no, broken, unknown or revoked key.
	Unauthorized int64 `json:"unauthorized"`
	// Violations is the sum over all budgets and entities.
	Violations int64 `json:"violations"`
	// Budgets has every budget that was ever asked, by business in the order of the configuration, then entity and method.
	Budgets []BudgetStats `json:"budgets"`
	// Parallel has every entity that was ever asked, in the same order.
	Parallel []ParallelStats `json:"parallel"`
	// Recent are the last violations of each business, oldest first.
	Recent []Violation `json:"recent_violations"`
}

// BudgetStats is what happened to the budget of one entity and method.
type BudgetStats struct {
	Business int64  `json:"business"`
	Entity   Entity `json:"entity"`
	Method   Method `json:"method"`
	// Requests counts all that arrived and were not refused for being too many at once, Refused those that found no
	// budget, Violations those of them that were the client's fault: all, unless others spend or the limit comes down.
	Requests   int64 `json:"requests"`
	Refused    int64 `json:"refused"`
	Violations int64 `json:"violations"`
	// LowestRemaining is the least that the client's own spending ever left of the window's limit.
	LowestRemaining int `json:"lowest_remaining"`
	// ClosestCall is the shortest time after the beginning of a window at which a request arrived when the client had
	// spent all of the window before: how near it came to a violation. Nil where that never happened.
	ClosestCall *time.Duration `json:"closest_call_ns"`
}

// ParallelStats is what happened to the slots of one entity.
type ParallelStats struct {
	Business int64  `json:"business"`
	Entity   Entity `json:"entity"`
	// Most is how many of the client's requests were under way at once at most, those not counted that were refused.
	Most int `json:"most"`
	// Refused counts requests that found no slot, Violations those of them that found only the client's own before them.
	Refused    int64 `json:"refused"`
	Violations int64 `json:"violations"`
}

// counts are the numbers that belong to no business. The Market's mutex guards them.
type counts struct {
	methods                            map[Method]int64
	notFound, notAllowed, unauthorized int64
}

func (m *Market) count(f func(*counts)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.counts)
}

// Stats returns a copy of all counters.
func (m *Market) Stats() Stats {
	m.mu.Lock()
	out := Stats{
		Requests: maps.Clone(m.counts.methods), NotFound: m.counts.notFound, NotAllowed: m.counts.notAllowed,
		Unauthorized: m.counts.unauthorized, Budgets: []BudgetStats{}, Parallel: []ParallelStats{}, Recent: []Violation{},
	}
	m.mu.Unlock()
	for _, b := range m.businesses {
		budgets, parallel, violations := b.accounts(b.spec.ID)
		for _, s := range budgets {
			out.Violations += s.Violations
		}
		for _, s := range parallel {
			out.Violations += s.Violations
		}
		out.Budgets = append(out.Budgets, budgets...)
		out.Parallel = append(out.Parallel, parallel...)
		out.Recent = append(out.Recent, violations...)
	}
	slices.SortStableFunc(out.Recent, func(a, b Violation) int { return a.Time.Compare(b.Time) })
	return out
}

type budgetKey struct {
	entity Entity
	method Method
}

// lane is what an entity has under way.
type lane struct {
	own, others, most   int
	refused, violations int64
}

// spending is what the entities of a business spend. It has a mutex of its own: a request that waits holds a slot.
type spending struct {
	spendMu    sync.Mutex // guards the rest; nothing else is taken while it is held
	budgets    map[budgetKey]*budget
	lanes      map[Entity]*lane
	violations []Violation
}

func newSpending() spending {
	return spending{budgets: make(map[budgetKey]*budget), lanes: make(map[Entity]*lane)}
}

// payment is what a request owes.
type payment struct {
	entity     Entity
	method     Method
	limit      int
	documented int // without the subscription: what a client may know before it was told
	windows    windows
	now        time.Time
	// drain makes others spend everything just before; drainFor: for at least so long.
	drain    bool
	drainFor time.Duration
	// refusedPay is [Quirks.RefusedPay].
	refusedPay bool
}

// enter takes one of the slots of an entity. leave gives it back, once.
func (s *spending) enter(p payment, slots int) (leave func(), ok bool) {
	s.spendMu.Lock()
	defer s.spendMu.Unlock()
	l := s.lane(p.entity)
	if l.own+l.others >= slots {
		l.refused++
		if l.own >= slots {
			l.violations++
			s.violated(Violation{ViolationParallel, p.entity, p.method, p.now})
		}
		return nil, false
	}
	l.own++
	l.most = max(l.most, l.own)
	return sync.OnceFunc(func() {
		s.spendMu.Lock()
		defer s.spendMu.Unlock()
		l.own--
	}), true
}

func (s *spending) lane(e Entity) *lane {
	if s.lanes[e] == nil {
		s.lanes[e] = &lane{}
	}
	return s.lanes[e]
}

func (s *spending) budget(e Entity, method Method, documented int) *budget {
	key := budgetKey{e, method}
	if s.budgets[key] == nil {
		s.budgets[key] = &budget{told: documented, lowest: -1}
	}
	return s.budgets[key]
}

// pay spends one request, and returns what the headers of its answer say.
func (s *spending) pay(p payment) (reading, bool) {
	s.spendMu.Lock()
	defer s.spendMu.Unlock()
	b := s.budget(p.entity, p.method, p.documented)
	if p.drain {
		b.forget(p.now, p.limit, p.windows)
		b.add(p.now, 0, max(0, p.limit-b.own-b.others))
		if p.drainFor > 0 {
			b.gone = p.now.Add(p.drainFor)
		}
	}
	ok, violation := b.take(p.now, p.limit, p.windows, p.refusedPay)
	if violation != "" {
		s.violated(Violation{violation, p.entity, p.method, p.now})
	}
	return reading{limit: p.limit, remaining: max(0, p.limit-b.own-b.others), until: b.until(p.now, p.windows)}, ok
}

// look is what the headers say when nothing is spent.
func (s *spending) look(p payment) reading {
	s.spendMu.Lock()
	defer s.spendMu.Unlock()
	b := s.budget(p.entity, p.method, p.documented)
	b.forget(p.now, p.limit, p.windows)
	return reading{limit: p.limit, remaining: max(0, p.limit-b.own-b.others), until: b.until(p.now, p.windows)}
}

// tell records that an answer with the headers leaves; refused: a 420 that says when to come again.
func (s *spending) tell(p payment, r reading, now time.Time, refused bool) {
	s.spendMu.Lock()
	defer s.spendMu.Unlock()
	b := s.budget(p.entity, p.method, p.documented)
	b.tell(now, r)
	if refused {
		b.refusedAt, b.notBefore = now, r.until
	}
}

// spendElsewhere is another program spending n requests; what is not there it does not get.
func (s *spending) spendElsewhere(p payment, n int) {
	s.spendMu.Lock()
	defer s.spendMu.Unlock()
	b := s.budget(p.entity, p.method, p.documented)
	b.forget(p.now, p.limit, p.windows)
	b.add(p.now, 0, min(n, max(0, p.limit-b.own-b.others)))
}

func (s *spending) violated(v Violation) {
	if len(s.violations) == keptViolations {
		s.violations = s.violations[1:]
	}
	s.violations = append(s.violations, v)
}

func (s *spending) accounts(business int64) (budgets []BudgetStats, parallel []ParallelStats, violations []Violation) {
	s.spendMu.Lock()
	defer s.spendMu.Unlock()
	for key, b := range s.budgets {
		if b.requests == 0 {
			continue // only others have spent
		}
		budgets = append(budgets, BudgetStats{
			Business: business, Entity: key.entity, Method: key.method, Requests: b.requests, Refused: b.refused,
			Violations: b.violations, LowestRemaining: max(0, b.lowest), ClosestCall: b.closest,
		})
	}
	for e, l := range s.lanes {
		parallel = append(parallel, ParallelStats{business, e, l.most, l.refused, l.violations})
	}
	slices.SortFunc(budgets, func(a, b BudgetStats) int {
		return cmp.Or(cmp.Compare(a.Entity, b.Entity), cmp.Compare(a.Method, b.Method))
	})
	slices.SortFunc(parallel, func(a, b ParallelStats) int { return cmp.Compare(a.Entity, b.Entity) })
	return budgets, parallel, slices.Clone(s.violations)
}
