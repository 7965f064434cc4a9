package state

import "encoding/json"

// change is what a reading of an item comes to.
type change struct {
	action Action
	item   *Item   // of the event, where the action has one
	record *record // to save; nil: it stays as it is
	held   *held   // to keep aside
	drop   bool    // what is kept aside goes
}

func (c change) writes() bool { return c.record != nil || c.held != nil || c.drop }

// look finds an item's record, and says what the reading comes to.
func (s *streamRecords) look(p *Page, it *Item) (key []byte, r *record, c change, err error) {
	if key, r, err = s.find(it); err != nil {
		return nil, nil, change{}, err
	}
	var h *held
	if r != nil {
		if h, err = s.heldAt(key); err != nil {
			return nil, nil, change{}, err
		}
	}
	c, err = judge(p, it, r, h)
	return key, r, c, err
}

// judge says what a reading of an item comes to, given its record and what is
// kept aside of it; nil: there is none.
func judge(p *Page, it *Item, r *record, h *held) (change, error) {
	if r == nil {
		c := change{action: ActionCreated, item: it, record: p.version(it, nil, 1)}
		if it.Silent {
			c.action, c.record.Emitted = ActionSilent, false
		}
		return c, nil
	}
	// The request was sent before the one that showed what is known by now.
	stale := p.Stamp < r.Stamp || h != nil && p.Stamp < h.Stamp
	switch {
	case p.Unemitted && !r.Emitted && !it.Silent:
		return judgeUnemitted(p, it, r, h, stale)
	case stale:
		return change{action: ActionStale}, nil
	case r.Removed:
		return change{action: ActionCreated, item: it, record: p.version(it, r, r.N+1)}, nil
	case it.Immutable:
		return change{action: ActionUnchanged}, nil
	}
	fp, known, err := p.fingerprint(r)
	switch {
	case err != nil:
		return change{}, err
	case !known:
		// A change of the rules emits nothing by itself, and there is no body to
		// compare by today's. The body stays away: its time was over.
		return change{action: ActionAdopted, record: r.confirmed(p, it), drop: h != nil}, nil
	case fp == it.Fingerprint.String() && h != nil:
		// As it was before: the stamp keeps out readings from in between.
		return change{action: ActionUnchanged, record: r.confirmed(p, it), drop: true}, nil
	case fp == it.Fingerprint.String():
		return change{action: ActionUnchanged, record: r.present(p.Stamp)}, nil
	case h != nil && h.Rules == p.Rules && h.FP == it.Fingerprint.String():
		return change{action: ActionUnchanged, record: r.present(p.Stamp)}, nil
	}
	paths := p.grown(r.Body, it.Body)
	if paths == nil {
		return change{action: ActionUpdated, item: it, record: p.version(it, r, r.N+1), drop: h != nil}, nil
	}
	return change{action: ActionHeld, record: r.present(p.Stamp), held: &held{
		V: 1, Stamp: p.Stamp, FP: it.Fingerprint.String(), Rules: p.Rules, Paths: paths, Item: *it,
	}}, nil
}

// judgeUnemitted makes a record that was never in an event one that was. Its
// version was in none either, so it keeps its number if it is still the same.
func judgeUnemitted(p *Page, it *Item, r *record, h *held, stale bool) (change, error) {
	if stale && r.Body != nil {
		// Something newer than this reading was recorded silently, or is held back,
		// while it was on its way: what is on record is as good, and known.
		own := *it
		own.Body = r.Body
		next := *r
		next.Emitted = true
		if !it.Immutable {
			fp, _, err := p.fingerprint(r)
			if err != nil {
				return change{}, err
			}
			if own.Fingerprint, err = parseFingerprint(fp); err != nil {
				return change{}, err
			}
			next.FP, next.Rules = fp, p.Rules
		}
		return change{action: ActionCreated, item: &own, record: &next}, nil
	}
	n := r.N
	if !it.Immutable {
		fp, known, err := p.fingerprint(r)
		if err != nil {
			return change{}, err
		}
		if !known || fp != it.Fingerprint.String() {
			n++
		}
	}
	return change{action: ActionCreated, item: it, record: p.version(it, r, n), drop: h != nil}, nil
}

// version is the record of an item as this page shows it, in place of r.
func (p *Page) version(it *Item, r *record, n uint64) *record {
	next := &record{V: 1, N: n, Rules: p.Rules, Kind: it.Kind, Subject: it.Subject, Stamp: p.Stamp, At: p.Now.UnixMilli(), Emitted: true, Body: it.Body}
	if !it.Immutable {
		next.FP = it.Fingerprint.String()
	}
	if !it.Changed.IsZero() {
		next.Changed = it.Changed.UnixMilli()
	}
	if r != nil {
		next.Stamp, next.Missing = max(p.Stamp, r.Stamp), r.missingAfter(p.Stamp)
	}
	return next
}

// fingerprint is a record's under the rules of the page. known is false where it
// was made under others and the body is gone.
func (p *Page) fingerprint(r *record) (fp string, known bool, err error) {
	switch {
	case r.Rules == p.Rules:
		return r.FP, true, nil
	case r.Body == nil:
		return "", false, nil
	}
	f, err := p.Refingerprint(r.Body)
	return f.String(), true, err
}

// grown returns the paths at which keys came or went, if two bodies differ by
// nothing else as far as anybody can tell; else nil.
func (p *Page) grown(old, new json.RawMessage) []string {
	if p.Grown == nil || old == nil {
		return nil
	}
	paths, only, err := p.Grown(old, new)
	if err != nil || !only || len(paths) == 0 {
		return nil
	}
	return paths
}

// confirmed is the record after a reading that showed the same version.
func (r *record) confirmed(p *Page, it *Item) *record {
	next := *r
	next.FP, next.Rules, next.Stamp, next.Missing = it.Fingerprint.String(), p.Rules, p.Stamp, r.missingAfter(p.Stamp)
	return &next
}

// missingAfter is the mark that is left of r.Missing after a reading with a stamp:
// none where it is the later one.
func (r *record) missingAfter(stamp uint64) uint64 {
	if stamp > r.Missing {
		return 0
	}
	return r.Missing
}

// present is the record without the mark that a run has left which did not show
// the item, now that a later reading does. Nil: there is no such mark.
func (r *record) present(stamp uint64) *record {
	if r.Missing == 0 || stamp <= r.Missing {
		return nil
	}
	next := *r
	next.Missing = 0
	return &next
}
