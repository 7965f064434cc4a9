package sandbox

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"syncd/internal/sandbox/kit"
)

// Config describes the sandbox. The zero value of a field means the default its comment gives.
type Config struct {
	// Seed decides everything that is random: the worlds, the signing key, ids in errors, faults by rate.
	Seed uint64

	// Epoch is where history ends and growth begins. Default: the moment of [New].
	Epoch time.Time

	// Sellers are the accounts that exist. Tokens of anybody else are answered 401.
	Sellers []Seller

	// Quirks are the readings of the API to start with; [Sandbox.SetQuirks] changes them later.
	Quirks Quirks

	// ChatBuckets decides whether the methods of the chat host, and those of the returns host, share one bucket each, which
	// the documents leave open.
	ChatBuckets ChatBuckets
}

// Seller is one account of the marketplace.
type Seller struct {
	// ID is the sid of its tokens, a UUID. Default: derived from the seed and the seller's place in the list.
	ID string
	// Name appears as supplierName. Default: a name derived from the seed.
	Name string
	// World says what its buyers write.
	World WorldSpec
}

// ChatBuckets says how the chat methods share their budget.
type ChatBuckets int

const (
	// ChatBucketPerHost gives all chat methods one bucket: the reading that is safe for a client, and the default.
	ChatBucketPerHost ChatBuckets = iota
	// ChatBucketPerMethod gives each chat method its own.
	ChatBucketPerMethod
)

// Sandbox is the simulated marketplace. Make one with [New].
type Sandbox struct {
	seed        uint64
	epoch       time.Time
	chatBuckets ChatBuckets
	key         *ecdsa.PrivateKey
	worlds      []*World
	byID        map[string]*World
	faults      *kit.Faults

	mu       sync.Mutex // guards the rest; never held together with a World's
	quirks   Quirks
	ids      *rand.Rand        // request ids and error codes
	verified map[string]claims // tokens whose signature was checked: only our own get in, so it is bounded
	counts   counts
}

// New builds a sandbox and the history of all its worlds.
func New(cfg Config) (*Sandbox, error) {
	if cfg.Epoch.IsZero() {
		cfg.Epoch = time.Now()
	}
	key, err := deriveKey(cfg.Seed)
	if err != nil {
		return nil, fmt.Errorf("derive signing key: %w", err)
	}
	s := &Sandbox{
		seed:        cfg.Seed,
		epoch:       cfg.Epoch,
		chatBuckets: cfg.ChatBuckets,
		key:         key,
		byID:        make(map[string]*World),
		quirks:      cfg.Quirks,
		ids:         kit.Stream(cfg.Seed, "request ids"),
		faults:      kit.NewFaults(faultKinds, kit.Stream(cfg.Seed, "faults")),
		verified:    make(map[string]claims),
		counts:      counts{paths: make(map[string]int64)},
	}
	problems := []error{cfg.Quirks.validate()}
	for i, seller := range cfg.Sellers {
		if seller.ID == "" {
			seller.ID = kit.UUID(kit.Stream(cfg.Seed, fmt.Sprintf("seller %d", i)))
		}
		if seller.Name == "" {
			seller.Name = kit.Pick(kit.Stream(cfg.Seed, "name "+seller.ID), supplierNames)
		}
		if s.byID[seller.ID] != nil {
			problems = append(problems, fmt.Errorf("seller %d: id %s is taken", i, seller.ID))
			continue
		}
		if err := seller.World.validate(); err != nil {
			problems = append(problems, fmt.Errorf("seller %d: %w", i, err))
			continue
		}
		w := newWorld(seller, cfg.Seed, cfg.Epoch)
		s.worlds = append(s.worlds, w)
		s.byID[seller.ID] = w
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return s, nil
}

// Worlds returns the sellers' worlds in the order of [Config.Sellers].
func (s *Sandbox) Worlds() []*World { return s.worlds }

// SetQuirks changes how the API reads its unclear points from the next request on.
func (s *Sandbox) SetQuirks(q Quirks) error {
	if err := q.validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quirks = q
	return nil
}

// currentQuirks is what one request goes by, from its first line to its last.
func (s *Sandbox) currentQuirks() Quirks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quirks
}
