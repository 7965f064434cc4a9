package poller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

var errBroken = errors.New("no space left on device")

// rig is a state file and the log of a poller on it.
type rig struct {
	t       *testing.T
	path    string
	db      *state.DB
	reg     *prometheus.Registry
	mu      sync.Mutex
	commits int
	fault   func(n int, commit func() error) error
	trusted func() bool   // of poller.Config; may be nil
	large   bool          // the file is too large to be checked after each commit
	slow    time.Duration // each commit, one after the other
	queue   chan struct{} // for that: a bubble's clock stands still while somebody waits for a mutex
	out     lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "syncd.db")}
	r.open()
	t.Cleanup(func() { r.db.Close() })
	return r
}

// quickRig is a rig whose commits cost little: its file lies in memory where there
// is a place for that, and is checked when the test says so.
func quickRig(t *testing.T) *rig {
	dir, err := os.MkdirTemp("/dev/shm", "syncd")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, path: filepath.Join(dir, "syncd.db"), large: true}
	r.open()
	t.Cleanup(func() { r.db.Close() })
	return r
}

func (r *rig) open() {
	r.t.Helper()
	r.queue = make(chan struct{}, 1)
	db, err := state.Open(state.Config{Path: r.path, Commit: func(commit func() error) error {
		r.queue <- struct{}{}
		defer func() { <-r.queue }()
		r.mu.Lock()
		slow := r.slow
		r.mu.Unlock()
		time.Sleep(slow)
		r.mu.Lock()
		defer r.mu.Unlock()
		n := r.commits
		r.commits++
		err := func() error {
			if r.fault != nil {
				return r.fault(n, commit)
			}
			return commit()
		}()
		if r.large {
			return err
		}
		if err := r.db.Check(); err != nil {
			r.t.Errorf("after commit %d: %v", n, err)
		}
		return err
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.db = db
}

func (r *rig) reopen() {
	r.t.Helper()
	r.db.Close()
	r.open()
}

func (r *rig) committed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.commits
}

func (r *rig) new(streams ...poller.Stream) *poller.Poller {
	r.t.Helper()
	r.reg = prometheus.NewPedanticRegistry()
	p, err := poller.New(poller.Config{DB: r.db, Log: slog.New(slog.NewTextHandler(&r.out, nil)), Metrics: poller.NewMetrics(r.reg), Streams: streams,
		Trusted: r.trusted})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// start runs a poller; stop ends it and waits.
func (r *rig) start(streams ...poller.Stream) (stop func()) {
	r.t.Helper()
	_, stop = r.run(streams...)
	return stop
}

func (r *rig) run(streams ...poller.Stream) (p *poller.Poller, stop func()) {
	r.t.Helper()
	p = r.new(streams...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	synctest.Wait()
	if !p.Scheduled() {
		r.t.Error("Run has not scheduled every stream")
	}
	return p, func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) once(ctx context.Context, streams ...poller.Stream) []poller.Left {
	r.t.Helper()
	left, err := r.new(streams...).Once(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return left
}

// emitted returns the ids of the log without account and stream, with a mark for
// history.
func (r *rig) emitted() (out []string) {
	r.t.Helper()
	for e, err := range r.db.Events(0) {
		if err != nil {
			r.t.Fatal(err)
		}
		id := e.ID[len(e.Account)+1+len(e.Stream)+1:]
		if e.Backfill {
			id += " backfill"
		}
		out = append(out, id)
	}
	return out
}

// kinds returns the log as "created a", "updated a", "schema_changed", in order,
// with a mark for history.
func (r *rig) kinds() (out []string) {
	r.t.Helper()
	for e, err := range r.db.Events(0) {
		if err != nil {
			r.t.Fatal(err)
		}
		kind := e.Type[strings.LastIndexByte(e.Type, '.')+1:]
		if id := strings.Split(e.ID, "/"); kind != "schema_changed" {
			kind += " " + id[2]
		}
		if e.Backfill {
			kind += " backfill"
		}
		out = append(out, kind)
	}
	return out
}

func (r *rig) wantKinds(want ...string) {
	r.t.Helper()
	if got := r.kinds(); !slices.Equal(got, want) {
		r.t.Errorf("emitted %q\nwant    %q", got, want)
	}
}

func (r *rig) wantEmitted(want ...string) {
	r.t.Helper()
	if got := r.emitted(); !slices.Equal(got, want) {
		r.t.Errorf("emitted %q\nwant    %q", got, want)
	}
}

func (r *rig) wantLogged(text string, n int) {
	r.t.Helper()
	if got := strings.Count(r.out.String(), text); got != n {
		r.t.Errorf("%q was logged %d times, want %d:\n%s", text, got, n, r.out.String())
	}
}

// fake is a strict source: a list that each walk reads in pages of two, from a
// position that the cursor holds. News goes on from its last item, the others
// begin with the first each time. It fails the test when a walk overlaps itself
// and when a cursor comes back that it did not make for that walk. While a poller
// runs, its fields and what its functions look at are changed with set.
type fake struct {
	t      *testing.T
	seller string
	took   time.Duration                          // each request
	wait   func(q sources.Query) time.Duration    // a request longer than that; may be nil
	fail   func(n int) error                      // of the n-th request; nil: it works
	failAt func(q sources.Query) error            // the same, by what is asked for
	page   func(q sources.Query, p *sources.Page) // changes a page; may be nil
	staged bool                                   // the list is shown newest first
	whole  bool                                   // News shows everything, each time
	size   int                                    // of a page; 0: 2
	lap    int                                    // how many items before the newest one a News run begins
	forum  *forum                                 // whose list it is; may be nil
	late   int                                    // how many empty pages come before a run says that it is done

	mu     sync.Mutex
	busy   map[sources.Walk]bool
	items  []sources.Item
	times  []time.Time  // of the requests
	failed map[int]bool // of these
	calls  []sources.Query
	given  map[string]bool
	shown  map[string]bool // if not nil: id and body of what a page has shown
	tardy  map[string]bool // ids of items that came before others in the list: News may have missed them
}

func newFake(t *testing.T, ids ...string) *fake {
	f := &fake{t: t, seller: "seller-1", given: make(map[string]bool), busy: make(map[sources.Walk]bool)}
	f.add(ids...)
	return f
}

// item has no time where its id begins with "none", is of 1999 where it begins
// with "old", and was created now otherwise.
func item(id string) sources.Item {
	it := sources.Item{Kind: "question", ID: []string{id}, Subject: []string{"question", id}, Immutable: true,
		Created: time.Now(), Body: json.RawMessage(fmt.Sprintf(`{"id":%q}`, id))}
	switch {
	case strings.HasPrefix(id, "none"):
		it.Created = time.Time{}
	case strings.HasPrefix(id, "old"):
		it.Created = time.Date(1999, 12, 1, 0, 0, 0, 0, time.UTC)
	}
	return it
}

func (f *fake) add(ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.items = append(f.items, item(id))
	}
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// mutable makes all items such that can change.
func (f *fake) mutable() *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.items {
		f.items[i].Immutable = false
	}
	return f
}

// change gives items another body: the id, and these members.
func (f *fake) change(members string, ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, it := range f.items {
		if slices.Contains(ids, it.ID[0]) {
			f.items[i].Body = json.RawMessage(fmt.Sprintf(`{"id":%q%s}`, it.ID[0], members))
		}
	}
}

func (f *fake) remove(ids ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items = slices.DeleteFunc(slices.Clone(f.items), func(it sources.Item) bool { return slices.Contains(ids, it.ID[0]) })
}

func (f *fake) Seller() string { return f.seller }

type fakeCursor struct {
	At    int   // items read
	Began int64 // of the run; 0: none is going on
	Empty int   `json:",omitempty"` // empty pages at its end
}

func (f *fake) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	f.mu.Lock()
	if f.busy[q.Walk] {
		f.t.Errorf("walk %s overlaps itself", q.Walk)
	}
	f.busy[q.Walk] = true
	n := len(f.times)
	f.times, f.calls = append(f.times, time.Now()), append(f.calls, q)
	if q.Cursor != nil && !f.given[string(q.Walk)+string(q.Cursor)] {
		f.t.Errorf("a cursor that I never made for %s: %q", q.Walk, q.Cursor)
	}
	took := f.took
	if f.wait != nil {
		took += f.wait(q)
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.busy[q.Walk] = false
		f.mu.Unlock()
	}()
	time.Sleep(took) // what is on its way is allowed to finish
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(n); err != nil {
			if f.failed == nil {
				f.failed = make(map[int]bool)
			}
			f.failed[n] = true
			return sources.Page{}, err
		}
	}
	if f.failAt != nil {
		if err := f.failAt(q); err != nil {
			return sources.Page{}, err
		}
	}
	var c fakeCursor
	if q.Cursor != nil {
		if err := json.Unmarshal(q.Cursor, &c); err != nil {
			f.t.Error(err)
		}
	}
	if c.Began == 0 {
		c.Began = q.Now.UnixMilli()
	}
	if f.size == 0 {
		f.size = 2
	}
	c.At = min(c.At, len(f.items))
	end := min(c.At+f.size, len(f.items))
	p := sources.Page{Items: slices.Clone(f.items[c.At:end]), Staged: f.staged, Began: time.UnixMilli(c.Began)}
	c.At = end
	if len(f.items) > 0 {
		p.Progress = float64(end) / float64(len(f.items))
	}
	if end == len(f.items) && c.Empty < f.late {
		c.Empty++
	} else if p.Done = end == len(f.items); p.Done {
		c = fakeCursor{At: max(0, end-1-f.lap)} // the overlap
		if f.staged || f.whole || q.Walk != sources.News {
			c.At = 0
		}
	}
	p.Cursor, _ = json.Marshal(c)
	if f.page != nil {
		f.page(q, &p)
	}
	f.given[string(q.Walk)+string(p.Cursor)] = true
	if f.shown != nil {
		for _, it := range p.Items {
			f.shown[it.ID[0]+string(it.Body)] = true
		}
	}
	return p, nil
}

// Skip steps over one item.
func (f *fake) Skip(q sources.Query) (sources.Cursor, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var c fakeCursor
	if q.Cursor != nil {
		if err := json.Unmarshal(q.Cursor, &c); err != nil {
			return nil, "", err
		}
	}
	if c.At >= len(f.items) {
		return nil, "", errors.New("there is nothing to skip")
	}
	left := "question " + f.items[c.At].ID[0]
	c.At++
	raw, err := json.Marshal(c)
	f.given[string(q.Walk)+string(raw)] = true
	return raw, left, err
}

func (f *fake) requests() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.times)
}

// runs returns when a walk's runs began.
func (f *fake) runs(walk sources.Walk) (out []time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.calls {
		var c fakeCursor
		if q.Cursor != nil {
			if err := json.Unmarshal(q.Cursor, &c); err != nil {
				f.t.Error(err)
			}
		}
		if q.Walk == walk && c.Began == 0 {
			out = append(out, q.Now)
		}
	}
	return out
}

// pages returns how many pages of a walk were asked for.
func (f *fake) pages(walk sources.Walk) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.calls {
		if q.Walk == walk {
			n++
		}
	}
	return n
}

func stream(name string, f *fake, schedule string) poller.Stream {
	return poller.Stream{ID: state.StreamID{Account: "shop-a", Stream: name}, Marketplace: "wildberries", Group: "feedbacks", Source: f,
		Schedule: schedule, Start: &time.Time{}}
}

// swept is a stream with all walks.
func swept(name string, f *fake, schedule string, every, full time.Duration) poller.Stream {
	s := stream(name, f, schedule)
	s.Walks = []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill}
	s.Sweep = poller.Sweep{Every: every, Full: full, Window: 60 * 24 * time.Hour}
	return s
}

func failing(kind sources.Kind, scope sources.Scope, status int) error {
	return &sources.Error{Kind: kind, Scope: scope, Endpoint: "GET /x", Request: "/x?skip=0", Status: status, Hint: "look at the token", Err: fmt.Errorf("request %d", time.Now().UnixNano())}
}
