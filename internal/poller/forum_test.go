package poller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

// forum is a fake whose items have answers that no list shows: News finds the items
// of which it shows another number of answers than is remembered, and Follow visits
// them, two answers a page. Four answers are shown newest first, and are in order
// with the last page of them or of the visit.
type forum struct {
	*fake
	by      string // the stream that visits; empty: the same
	every   time.Duration
	answers map[string][]sources.Item
	blind   bool // the list does not show that there are answers
	visits  []string
	broken  map[string]error            // by the thing that is visited
	follow  func(q sources.Query) error // may be nil
	visited func(v *sources.Visit)      // changes what a visit says; may be nil
	planned func() ([]sources.VisitCount, error)
}

func newForum(f *fake) *forum {
	o := &forum{fake: f, every: time.Hour, answers: make(map[string][]sources.Item), broken: make(map[string]error)}
	f.forum = o
	f.page = func(q sources.Query, p *sources.Page) {
		for _, it := range p.Items {
			id := it.ID[0]
			n := len(o.answers[id])
			if o.blind {
				n = 0
			}
			found, _ := json.Marshal(map[string]int{"n": n})
			v, ok, err := q.Remembered(o.by, id)
			if err != nil {
				f.t.Error(err)
			}
			if !ok || string(v.Found) != string(found) {
				p.Found = append(p.Found, sources.Visit{Stream: o.by, ID: id, Created: it.Created, Due: q.Now, Urgent: ok, Found: found})
			}
		}
	}
	return o
}

// answer adds n answers to a thing.
func (o *forum) answer(id string, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for range n {
		it := item(fmt.Sprintf("%s-%02d", id, len(o.answers[id])+1))
		it.Kind, it.Subject, it.Created = "answer", []string{"question", id}, time.Now()
		it.Rank = uint64(len(o.answers[id]))
		o.answers[id] = append(o.answers[id], it)
	}
}

type forumCursor struct {
	Thing     string
	From, End int // of the four
	At        int // shown of them, from the end
	History   bool
}

func (o *forum) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	if q.Walk != sources.Follow {
		return o.fake.Fetch(ctx, q)
	}
	o.mu.Lock()
	took := o.took
	o.times, o.calls = append(o.times, time.Now()), append(o.calls, q)
	o.planned = q.Planned
	o.mu.Unlock()
	time.Sleep(took)
	o.mu.Lock()
	defer o.mu.Unlock()
	var c forumCursor
	switch {
	case q.Cursor != nil && (q.Visit != nil || !o.given["follow"+string(q.Cursor)]):
		o.t.Errorf("a cursor that I never made, or with a visit: %q", q.Cursor)
	case q.Cursor != nil:
		if err := json.Unmarshal(q.Cursor, &c); err != nil {
			o.t.Error(err)
		}
	case q.Visit == nil || q.Visit.ID == "" || q.Visit.Due.After(q.Now):
		o.t.Errorf("nothing to visit: %+v", q.Visit)
		return sources.Page{}, failing(sources.Rejected, sources.ScopeRequest, 400)
	default:
		c.Thing, c.History = q.Visit.ID, q.Visit.History
		if q.Visit.Seen != nil {
			if err := json.Unmarshal(q.Visit.Seen, &c.From); err != nil {
				o.t.Error(err)
			}
		}
		o.visits = append(o.visits, c.Thing)
	}
	if o.follow != nil {
		if err := o.follow(q); err != nil {
			return sources.Page{}, err
		}
	}
	if err := o.broken[c.Thing]; err != nil {
		return sources.Page{}, err
	}
	all := o.answers[c.Thing]
	if c.At == 0 {
		c.End = min(c.From+4, len(all))
	}
	to := c.End - c.At
	from := max(c.From, to-2)
	p := sources.Page{Items: slices.Clone(all[from:to]), Staged: len(all)-c.From > 0 && c.End > c.From, History: c.History}
	slices.Reverse(p.Items)
	c.At += to - from
	if from == c.From {
		p.Ordered = true
		p.Done = c.End == len(all)
		c.From, c.At = c.End, 0
	}
	if p.Done {
		seen, _ := json.Marshal(len(all))
		p.Visited = &sources.Visit{ID: c.Thing, Seen: seen, Due: q.Now.Add(o.every)}
		if o.visited != nil {
			o.visited(p.Visited)
		}
	} else {
		p.Cursor, _ = json.Marshal(c)
		o.given["follow"+string(p.Cursor)] = true
	}
	if o.shown != nil {
		for _, it := range p.Items {
			o.shown[it.ID[0]+string(it.Body)] = true
		}
	}
	return p, nil
}

// made returns what was visited so far, in order.
func (o *forum) made() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.visits)
}

// visitsOf returns how often a thing was visited.
func (o *forum) visitsOf(id string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range o.visits {
		if v == id {
			n++
		}
	}
	return n
}

// forumStream is a stream that finds its visits by itself.
func forumStream(o *forum, schedule string) poller.Stream {
	s := stream("questions", o.fake, schedule)
	s.Source = o
	s.Walks = []sources.Walk{sources.News, sources.Follow}
	s.Sweep = poller.Sweep{Every: quarter, Full: day, Window: 60 * day}
	return s
}
