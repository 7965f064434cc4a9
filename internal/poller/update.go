package poller

import (
	"errors"
	"maps"
	"reflect"
	"time"

	"syncd/internal/sources"
)

// ErrOver is why streams cannot be changed any more: Run has ended, or is about to.
var ErrOver = errors.New("polling is being stopped: nothing was changed")

// Update makes these the streams that are polled, while Run runs or before. Streams
// that are polled already, with the same settings and the same Source, go on
// undisturbed. The others that were polled are stopped, as at a shutdown: what is in
// flight is finished and committed, for which Update waits. What is new then begins,
// from where the state has it, and so does what has changed: a stream that comes back
// goes on where it was, and Start is not applied again. Streams of an account whose
// Source is another one than before are tried at once, whatever had stopped them.
//
// Where Update fails nothing has changed, except where the state cannot be read any
// more: then Run ends too. It may be called side by side with everything but Once and
// RunOnly; two calls come one after the other.
//
// A crash on the way costs what one of the whole process does: the next start polls
// what the configuration has then, from the state.
func (p *Poller) Update(streams []Stream) error {
	p.changing <- struct{}{}
	defer func() { <-p.changing }()
	if p.over || p.running != nil && p.running.Err() != nil {
		return ErrOver
	}
	stopped := p.Stopped()
	kept := make(map[*worker]bool)
	var all, fresh, gone []*worker
	for _, s := range streams {
		w := p.worker(s.ID)
		if w == nil || !w.Stream.same(s) || stopped[s.ID.Account] != nil {
			var err error
			if w, err = newWorker(p, s, len(streams)); err != nil {
				return err
			}
			fresh = append(fresh, w)
		}
		kept[w] = true
		all = append(all, w)
	}
	for _, w := range p.all() {
		if !kept[w] {
			gone = append(gone, w)
		}
	}
	if err := p.replace(all, fresh, gone); err != nil {
		return err
	}
	for _, w := range gone {
		if p.worker(w.ID) == nil {
			p.metrics.forget(w.ID)
		}
	}
	p.declare(fresh)
	p.warnTwice(fresh)
	return nil
}

// replace puts fresh in the places of gone; all are those that there are then.
func (p *Poller) replace(all, fresh, gone []*worker) error {
	if !p.opened {
		p.put(all)
		return nil
	}
	firstPoll, stopped, err := p.pin(fresh)
	if err != nil {
		return err
	}
	// What does not run is opened first: of a new stream that is written, and a disk that
	// is full must not cost those that run.
	opened := make(map[*worker]bool)
	for _, w := range fresh {
		if was := p.worker(w.ID); stopped[w.ID.Account] == nil && (was == nil || was.cancel == nil) {
			if err := w.open(firstPoll[w.ID.Account]); err != nil {
				return err
			}
			opened[w] = true
		}
	}
	halt(gone)
	p.part(gone)

	p.acting.Lock()
	defer p.acting.Unlock()
	var begin []*worker
	for _, w := range fresh {
		if stopped[w.ID.Account] != nil {
			continue
		}
		if !opened[w] {
			if err := w.open(firstPoll[w.ID.Account]); err != nil {
				p.breaks(err)
				return err
			}
		}
		begin = append(begin, w)
	}
	p.forgive(all, fresh, stopped)
	p.put(all)
	if p.running != nil {
		p.begin(begin)
	}
	return nil
}

// forgive takes in which accounts are stopped, of those of fresh: all others are
// polled. It lets go of what a token was refused for where the account has another
// Source, or has left.
func (p *Poller) forgive(all, fresh []*worker, stopped map[string]error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = stopped
	was, there, renewed := make(map[sources.Source]bool), make(map[groupID]bool), make(map[groupID]bool)
	for _, w := range p.workers {
		was[w.Source] = true
	}
	for _, w := range all {
		there[groupID{w.ID.Account, w.Group}] = true
	}
	for _, w := range fresh {
		if !was[w.Source] {
			renewed[groupID{w.ID.Account, w.Group}] = true
		}
	}
	maps.DeleteFunc(p.blocked, func(id groupID, _ time.Time) bool { return renewed[id] || !there[id] })
}

// same reports whether two streams are polled in the same way from the same Source.
// Start means nothing any more to a stream that has been opened.
func (s Stream) same(o Stream) bool {
	if s.Source != o.Source {
		return false
	}
	s.Source, o.Source, s.Start, o.Start = nil, nil, nil, nil
	return reflect.DeepEqual(s, o)
}
