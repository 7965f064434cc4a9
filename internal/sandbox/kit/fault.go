package kit

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// FaultKind is a way for a request to go wrong. Faulted requests pay budget as all others do.
type FaultKind string

// Fault is an order to spoil requests. The first order that matches a request and is not used up decides; those that
// spend the budget come before the others.
type Fault struct {
	Kind FaultKind
	// Variant is the form of a kind that has several. Default: the kind's first.
	Variant string
	// Path limits it to requests of exactly this path, or, if it ends in a slash, of paths below it. Default: every path.
	Path string
	// Seller limits it to one seller's requests. Default: everybody's.
	Seller string
	// Count is how many requests it spoils. Default: all until the faults are cleared.
	Count int
	// Rate is the share of matching requests that it spoils, drawn by the seed. Default: all.
	Rate float64
	// Delay is how long a kind that takes time takes; each kind has its own default.
	Delay time.Duration

	spent bool // Count has been used up
}

// Faults are the orders of one marketplace, and the kinds that it knows, each with its variants, the default first. It is
// safe for concurrent use.
type Faults struct {
	kinds map[FaultKind][]string

	mu     sync.Mutex // guards the rest
	dice   *rand.Rand
	orders []*Fault
}

// NewFaults makes one without orders. Faults by rate are drawn from dice.
func NewFaults(kinds map[FaultKind][]string, dice *rand.Rand) *Faults {
	return &Faults{kinds: kinds, dice: dice}
}

func (fs *Faults) validate(f Fault) error {
	variants, known := fs.kinds[f.Kind]
	switch {
	case !known:
		return fmt.Errorf("unknown fault kind %q: there are %q", f.Kind, slices.Sorted(maps.Keys(fs.kinds)))
	case f.Variant != "" && !slices.Contains(variants, f.Variant):
		return fmt.Errorf("fault %s: unknown variant %q: there are %q", f.Kind, f.Variant, variants)
	case f.Count < 0:
		return fmt.Errorf("fault %s: count %d: expected 1 or more, or 0 for no end", f.Kind, f.Count)
	case !(f.Rate >= 0 && f.Rate <= 1):
		return fmt.Errorf("fault %s: rate %v: expected a share from 0 to 1", f.Kind, f.Rate)
	case f.Delay < 0:
		return fmt.Errorf("fault %s: negative delay %s", f.Kind, f.Delay)
	}
	return nil
}

// Inject adds faults behind those that are there. If one of them is invalid, none is added.
func (fs *Faults) Inject(faults ...Fault) error {
	var problems []error
	for _, f := range faults {
		problems = append(problems, fs.validate(f))
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range faults {
		fs.orders = append(fs.orders, &f)
	}
	return nil
}

// Clear ends all faults.
func (fs *Faults) Clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.orders = nil
}

// Left returns the faults that can still strike, with what is left of their counts.
func (fs *Faults) Left() []Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	out := []Fault{}
	for _, f := range fs.orders {
		if !f.spent {
			out = append(out, *f)
		}
	}
	return out
}

// Take finds the fault for a request among those of some kinds, and uses it up by one. Its variant is never empty where the
// kind has several. Nil: there is none.
func (fs *Faults) Take(seller, path string, of func(FaultKind) bool) *Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.orders {
		if f.spent || !of(f.Kind) || !f.covers(path) || f.Seller != "" && f.Seller != seller {
			continue
		}
		if f.Rate > 0 && fs.dice.Float64() >= f.Rate {
			continue
		}
		if f.Count > 0 {
			f.Count--
			f.spent = f.Count == 0
		}
		struck := *f
		if variants := fs.kinds[f.Kind]; struck.Variant == "" && len(variants) > 0 {
			struck.Variant = variants[0]
		}
		return &struck
	}
	return nil
}

func (f *Fault) covers(path string) bool {
	return f.Path == "" || f.Path == path || strings.HasSuffix(f.Path, "/") && strings.HasPrefix(path, f.Path)
}

// faultJSON is a [Fault] over HTTP; the delay is written "10s".
type faultJSON struct {
	Kind    FaultKind `json:"kind"`
	Variant string    `json:"variant,omitempty"`
	Path    string    `json:"path,omitempty"`
	Seller  string    `json:"seller,omitempty"`
	Count   int       `json:"count,omitempty"`
	Rate    float64   `json:"rate,omitempty"`
	Delay   string    `json:"delay,omitempty"`
}

// maxControlBody is plenty for one fault.
const maxControlBody = 64 << 10

// Control answers the methods that every marketplace of the sandbox has beside its API: GET stats, and GET, POST and
// DELETE faults, below a prefix.
func (fs *Faults) Control(w http.ResponseWriter, r *http.Request, prefix string, stats func() any) {
	switch r.Method + " " + r.URL.Path {
	case "GET " + prefix + "stats":
		Send(w, JSON(http.StatusOK, TypeJSON, stats()))
	case "GET " + prefix + "faults":
		fs.send(w)
	case "POST " + prefix + "faults":
		if err := fs.injectFrom(w, r); err != nil {
			Send(w, JSON(http.StatusBadRequest, TypeJSON, map[string]string{"error": err.Error()}))
			return
		}
		fs.send(w)
	case "DELETE " + prefix + "faults":
		fs.Clear()
		fs.send(w)
	default:
		Send(w, JSON(http.StatusNotFound, TypeJSON, map[string]string{
			"error": "no such control; there are GET stats, and GET, POST and DELETE faults",
		}))
	}
}

// injectFrom reads one fault from a request's body.
func (fs *Faults) injectFrom(w http.ResponseWriter, r *http.Request) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	dec.DisallowUnknownFields()
	var in faultJSON
	if err := dec.Decode(&in); err != nil {
		return fmt.Errorf("read fault: %w", err)
	}
	f := Fault{Kind: in.Kind, Variant: in.Variant, Path: in.Path, Seller: in.Seller, Count: in.Count, Rate: in.Rate}
	if in.Delay != "" {
		var err error
		if f.Delay, err = time.ParseDuration(in.Delay); err != nil {
			return fmt.Errorf("delay: %w", err)
		}
	}
	return fs.Inject(f)
}

func (fs *Faults) send(w http.ResponseWriter) {
	out := []faultJSON{}
	for _, f := range fs.Left() {
		j := faultJSON{Kind: f.Kind, Variant: f.Variant, Path: f.Path, Seller: f.Seller, Count: f.Count, Rate: f.Rate}
		if f.Delay > 0 {
			j.Delay = f.Delay.String()
		}
		out = append(out, j)
	}
	Send(w, JSON(http.StatusOK, TypeJSON, out))
}
