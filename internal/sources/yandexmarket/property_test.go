package yandexmarket_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// TestChatMessagesProperty: whatever the order of lists and messages, whatever
// messageIdFrom means, with messages of one second and late ones, tokens that die,
// chats that the list drops, faults, and crashes at any request: each message that
// stayed visible is emitted once, and in order as far as it was visible in order.
func TestChatMessagesProperty(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) { chatProperty(t, seed) }))
		})
	}
}

// keeper polls both streams as the engine does, as far as it matters here: what is
// saved is saved page by page, and a crash loses what is not.
type keeper struct {
	t      *testing.T
	r      *rand.Rand
	source sources.Source
	start  time.Time
	crash  float64 // probability that a page is lost, be it by a crash or on its way

	cursors map[string]sources.Cursor
	visits  visits
	records map[string]json.RawMessage // of chats
	shown   map[string]bool            // chats, in the run of news that goes on
	missed  []string                   // chats that the last complete one did not show
	staged  []sources.Item             // of the visit that goes on
	visit   *sources.Visit
	began   time.Time            // the visit that goes on, for the last time from its beginning
	emitted map[string]time.Time // messages, and when the reading began that showed them
	order   []string
}

// page reads a page of a walk and saves it. It returns false where the walk cannot go
// on now.
func (k *keeper) page(stream string, walk sources.Walk) (done, ok bool) {
	key := stream + "/" + string(walk)
	q := sources.Query{Stream: stream, Walk: walk, Cursor: k.cursors[key], Since: k.start, Window: 60 * 24 * time.Hour, Now: time.Now(), Remembered: k.visits.remembered}
	switch walk {
	case sources.Follow:
		if q.Cursor == nil {
			q.Visit, k.began = k.visit, time.Now()
		}
	case sources.Sweep:
		q.Missing = func(after string, n int) (items []sources.Known, next string, err error) {
			i, _ := slices.BinarySearch(k.missed, after+"\x00")
			for ; i < len(k.missed) && len(items) < n; i++ {
				next = k.missed[i]
				items = append(items, sources.Known{ID: next, Body: k.records[next]})
			}
			if i == len(k.missed) {
				next = ""
			}
			return items, next, nil
		}
	}
	p, err := k.source.Fetch(context.Background(), q)
	if err != nil || k.r.Float64() < k.crash {
		return false, false
	}
	// Saved, in one transaction.
	if k.cursors[key] = p.Cursor; p.Done && walk == sources.Follow {
		k.cursors[key] = nil
	}
	k.visits.found(stream, p.Found)
	if stream == yandexmarket.Chats {
		for _, it := range p.Items {
			id := it.ID[0]
			k.records[id], k.shown[id] = bytes.Clone(it.Body), true
		}
		if walk == sources.News && p.Done {
			k.missed = nil
			for _, id := range slices.Sorted(maps.Keys(k.records)) {
				if !k.shown[id] {
					k.missed = append(k.missed, id)
				}
			}
			clear(k.shown)
		}
		return p.Done, true
	}
	items := p.Items
	if p.Staged {
		k.staged = append(k.staged, items...)
		if items = nil; p.Done || p.Ordered {
			items, k.staged = k.staged, nil
			slices.SortStableFunc(items, func(a, b sources.Item) int {
				return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Rank, b.Rank))
			})
		}
	}
	for _, it := range items {
		id := strings.Join(it.ID, "/")
		if _, ok := k.emitted[id]; !ok {
			k.emitted[id] = k.began
			k.order = append(k.order, id)
		}
	}
	if walk == sources.Follow && p.Done {
		k.visits.visited(stream, k.visit.Version, *p.Visited)
		k.visit = nil
	}
	return p.Done, true
}

// run reads until a run is complete or fails.
func (k *keeper) run(stream string, walk sources.Walk) (complete bool) {
	for {
		if done, ok := k.page(stream, walk); done || !ok {
			return done
		}
	}
}

// work makes visits until none is due, or something fails.
func (k *keeper) work() {
	for {
		if k.visit == nil {
			due := k.visits.due(yandexmarket.ChatMessages, time.Now())
			if len(due) == 0 {
				return
			}
			v := *k.visits[yandexmarket.ChatMessages][due[0]]
			k.visit = &v
		}
		if _, ok := k.page(yandexmarket.ChatMessages, sources.Follow); !ok {
			if k.cursors[yandexmarket.ChatMessages+"/follow"] == nil {
				k.visit = nil
			}
			return
		}
	}
}

func chatProperty(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	chance := func(p float64) bool { return r.Float64() < p }
	w := newChatWorld(t)
	w.mix = r
	w.size, w.history = 3+r.IntN(18), 10+r.IntN(91)
	w.newest = chance(0.5)
	names := slices.Sorted(maps.Keys(meanings))
	meaning := names[r.IntN(len(names))]
	w.from = meanings[meaning]
	if chance(0.5) {
		w.order = recent
	}
	if chance(0.5) {
		w.life = 1 + r.IntN(6)
	}
	w.delay = time.Duration(r.IntN(800)) * time.Millisecond
	start := time.Now().Truncate(time.Second)
	const lasting = 40 * time.Minute
	falling := chance(0.2) // ids do not follow time
	for range 5 + r.IntN(12) {
		c := w.add()
		c.created = start.Add(-time.Duration(r.IntN(100)) * time.Hour)
		if chance(0.2) {
			c.created = start.Add(time.Duration(r.Int64N(int64(lasting))))
		}
		at, n := c.created, 0
		if chance(0.3) {
			n = r.IntN(160) // long before, one a second
			at = at.Add(-time.Duration(n) * time.Second)
		}
		for at.Before(start.Add(lasting)) {
			switch {
			case n > 0:
				n--
				at = at.Add(time.Second)
			case chance(0.4): // within the second, or the next ones
				at = at.Add(time.Duration(r.IntN(1500)) * time.Millisecond)
			default:
				at = at.Add(time.Duration(r.Int64N(int64(20 * time.Minute))))
				if at.Before(start.Add(-time.Hour)) {
					at = start.Add(-time.Duration(r.Int64N(int64(time.Hour))))
				}
			}
			if at.After(start.Add(lasting)) {
				break
			}
			m := c.say(0)
			m.at = at
			m.visible = at
			if falling {
				m.id = c.id*1000 + 999 - int64(len(c.messages))
			}
			if chance(0.2) {
				m.visible = at.Add(time.Duration(r.Int64N(int64(45 * time.Second))))
			}
		}
		if chance(0.3) {
			from := start.Add(time.Duration(r.Int64N(int64(lasting))))
			c.hidden = [2]time.Time{from, from.Add(100 * time.Hour)}
			if chance(0.3) {
				c.hidden[1] = from.Add(3 * time.Minute)
			}
		}
		if chance(0.15) {
			c.gone = start.Add(time.Duration(r.Int64N(int64(lasting))))
		}
		if chance(0.5) {
			c.statuses = append(c.statuses, fakeStatus{start.Add(time.Duration(r.Int64N(int64(lasting)))), "WAITING_FOR_PARTNER"})
		}
	}
	faults := 0.03
	w.fault = func(call) (int, string) {
		switch {
		case !chance(faults):
			return 0, ""
		case chance(0.5):
			return 500, "<html>"
		}
		return 200, `{"status":"OK","result":{"chats":[` // cut short
	}
	k := &keeper{t: t, r: r, source: open(t, w), start: start, crash: 0.05, cursors: make(map[string]sources.Cursor), visits: make(visits),
		records: make(map[string]json.RawMessage), shown: make(map[string]bool), emitted: make(map[string]time.Time)}
	sweep := false
	for n := 0; time.Since(start) < lasting+20*time.Minute; n++ {
		if time.Since(start) > lasting {
			faults, k.crash = 0, 0
		}
		if n%6 == 0 {
			k.run(yandexmarket.Chats, sources.News)
		}
		if sweep = sweep || n%90 == 0; sweep {
			sweep = !k.run(yandexmarket.Chats, sources.Sweep)
		}
		k.work()
		time.Sleep(10 * time.Second)
	}
	for _, c := range w.chats {
		for i, m := range c.messages {
			id := fmt.Sprint(c.id, "/", m.id)
			began, ok := k.emitted[id]
			// A chat that is not in the list is asked for every quarter of an hour, if
			// it ever was there for long enough.
			listed := c.hidden[0].IsZero() || c.hidden[0].Sub(later(c.created, start)) > 10*time.Minute
			stayed := listed && (c.gone.IsZero() || c.gone.Sub(m.visible) > 30*time.Minute)
			if !ok && stayed && !m.at.Before(start) {
				t.Errorf("%s of %s (visible %s) was never emitted; %s, hidden from %s", id, m.at.Sub(start), m.visible.Sub(start), meaning, c.hidden[0].Sub(start))
			}
			for _, next := range c.messages[i+1:] {
				other := fmt.Sprint(c.id, "/", next.id)
				a, b := slices.Index(k.order, id), slices.Index(k.order, other)
				if a > b && b >= 0 && next.at.Unix() > m.at.Unix() && m.visible.Before(k.emitted[other]) {
					t.Errorf("%s was visible before the reading began (%s) that showed %s before it; emitted by that of %s", id, k.emitted[other].Sub(start), other, began.Sub(start))
				}
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
