package yandexmarket

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"syncd/internal/sandbox/kit"
)

// Config describes the marketplace. The zero value of a field means the default its comment gives.
type Config struct {
	// Seed decides everything that is random: the worlds, keys, page tokens, faults by rate.
	Seed uint64

	// Epoch is where history ends and growth begins. Default: the moment of [New].
	Epoch time.Time

	// Businesses are the cabinets that exist.
	Businesses []BusinessSpec

	// Quirks are the readings of the API to start with; [Market.SetQuirks] changes them later.
	Quirks Quirks

	// Limits replace the documented numbers of requests per hour. [Market.SetLimit] changes them later.
	Limits map[Method]int

	// Parallel is how many requests of one entity may be under way at once. Default: 4, the documented number.
	Parallel int
}

// defaultParallel is "at most 4 simultaneous requests" (limits page, 2026).
const defaultParallel = 4

// Market is the simulated marketplace. Make one with [New].
type Market struct {
	seed       uint64
	parallel   int
	businesses []*Business
	byID       map[int64]*Business
	byCampaign sync.Map // int64 → *Business: stores are added while it runs
	faults     *kit.Faults

	mu     sync.Mutex // guards the rest; may be taken while a Business' is held, not the other way round
	quirks Quirks
	limits map[Method]int
	keys   map[string]*key
	minted int
	tokens tokenBook
	counts counts
	dice   *rand.Rand // orders that are another in every answer
}

// New builds a marketplace and the history of all its businesses.
func New(cfg Config) (*Market, error) {
	if cfg.Epoch.IsZero() {
		cfg.Epoch = time.Now()
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = defaultParallel
	}
	m := &Market{
		seed:     cfg.Seed,
		parallel: cfg.Parallel,
		byID:     make(map[int64]*Business),
		faults:   kit.NewFaults(faultKinds, kit.Stream(cfg.Seed, "yandex market faults")),
		quirks:   cfg.Quirks,
		limits:   make(map[Method]int),
		keys:     make(map[string]*key),
		counts:   counts{methods: make(map[Method]int64)},
		dice:     kit.Stream(cfg.Seed, "yandex market orders"),
	}
	m.tokens.uses = make(map[string]int)
	problems := []error{cfg.Quirks.validate()}
	if cfg.Parallel < 0 {
		problems = append(problems, fmt.Errorf("parallel: %d is negative", cfg.Parallel))
	}
	for _, method := range slices.Sorted(maps.Keys(cfg.Limits)) {
		problems = append(problems, m.SetLimit(method, cfg.Limits[method]))
	}
	for i, spec := range cfg.Businesses {
		spec = spec.withDefaults(cfg.Seed, i)
		if m.byID[spec.ID] != nil {
			problems = append(problems, fmt.Errorf("business %d: id %d is taken", i, spec.ID))
			continue
		}
		if err := spec.validate(); err != nil {
			problems = append(problems, fmt.Errorf("business %d: %w", i, err))
			continue
		}
		b := newBusiness(m, spec, cfg.Epoch)
		m.businesses = append(m.businesses, b)
		m.byID[spec.ID] = b
		for _, st := range b.stores {
			if _, taken := m.byCampaign.LoadOrStore(st.id, b); taken {
				problems = append(problems, fmt.Errorf("business %d: store %d is taken", i, st.id))
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return m, nil
}

// Businesses returns the businesses in the order of [Config.Businesses].
func (m *Market) Businesses() []*Business { return m.businesses }

// SetQuirks changes how the API reads its unclear points from the next request on.
func (m *Market) SetQuirks(q Quirks) error {
	if err := q.validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quirks = q
	return nil
}

// currentQuirks is what one request goes by, from its first line to its last.
func (m *Market) currentQuirks() Quirks {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.quirks
}

// SetLimit changes how many requests of a method an entity may make in a window, for all entities and at once; 0 restores
// the documented number. What was spent stays spent.
func (m *Market) SetLimit(method Method, n int) error {
	if _, known := documented[method]; !known {
		return fmt.Errorf("limit of unknown method %q", method)
	}
	if n < 0 {
		return fmt.Errorf("limit of %s: %d is negative", method, n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limits[method] = n; n == 0 {
		delete(m.limits, method)
	}
	return nil
}

// limitOf is the number of requests of a method that a business' subscription allows in a window.
func (m *Market) limitOf(rt route, b *Business) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.limits[rt.method]; ok {
		return n
	}
	if b.spec.Medium {
		return rt.limit.medium
	}
	return rt.limit.none
}
