package delivery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/sink"
	"syncd/internal/state"
)

var (
	errBroken = errors.New("no space left on device")
	errKilled = errors.New("the process is dead")
)

// rig is a state file, what was logged to it, and the process that serves it.
type rig struct {
	t       *testing.T
	reg     *prometheus.Registry
	metrics *delivery.Metrics

	mu      sync.Mutex // a commit, or a look at the file between two of them
	db      *state.DB
	path    string
	killed  bool
	check   bool                                   // verify the state after each commit
	fault   func(n int, commit func() error) error // of the n-th commit from 0
	commits int                                    // tried
	logged  []string                               // the partition key of each event, by sequence
	out     output                                 // the log

	untrusted atomic.Bool // the wall clock is not to be believed
	large     int         // bytes by which items are larger than they need be
	window    int         // most events that a sink reads ahead; 0: as many as it likes
}

// output is what was logged, which a test reads while more is.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, path: filepath.Join(quickDir(t), "0.db")}
	r.open()
	t.Cleanup(func() { r.db.Close() })
	return r
}

// quickDir is a directory in memory, where there is one: what a disk keeps is not
// what these tests are about, and they make thousands of commits.
func quickDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "syncd-delivery-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *rig) open() {
	r.t.Helper()
	generation := r.path
	db, err := state.Open(state.Config{Path: r.path, Commit: func(commit func() error) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.killed || generation != r.path {
			return errKilled
		}
		n := r.commits
		r.commits++
		var err error
		if r.fault != nil {
			err = r.fault(n, commit)
		} else {
			err = commit()
		}
		if r.check && !r.killed {
			if err := r.db.Check(); err != nil {
				r.t.Errorf("after commit %d: %v", n, err)
			}
		}
		return err
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.db = db
}

// kill is kill -9 between two commits: from now on nothing that the process does
// reaches the file or the receiver. Call it with mu held, or from a fault.
func (r *rig) killLocked() {
	raw, err := os.ReadFile(r.path)
	if err != nil {
		r.t.Error(err)
	}
	if err := os.WriteFile(r.path+"+", raw, 0o600); err != nil {
		r.t.Error(err)
	}
	r.killed = true
}

// restart opens what the dead process left. Its goroutines must have ended.
func (r *rig) restart() {
	r.t.Helper()
	r.db.Close()
	r.mu.Lock()
	r.path += "+"
	r.killed = false
	r.mu.Unlock()
	r.open()
	if err := r.db.Check(); err != nil {
		r.t.Fatalf("after a restart: %v", err)
	}
}

func (r *rig) isKilled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.killed
}

// log appends an event for each subject, in one page.
func (r *rig) log(subjects ...string) {
	r.t.Helper()
	if !r.tryLog(subjects...) {
		r.t.Fatal("the events were not logged")
	}
}

func pageOf(db *state.DB, at, size int, subjects ...string) state.Page {
	p := state.Page{Stream: state.StreamID{Account: "shop-a", Stream: "questions"}, Marketplace: "wildberries", Walk: "news",
		Stamp: db.Stamp(), Now: time.Now(), Cursor: []byte("{}"), Rules: "1",
		Refingerprint: func(b json.RawMessage) (event.Fingerprint, error) { return fingerprint.Of(b, nil) }}
	for i, s := range subjects {
		kind := "question"
		if s[0] == 'x' {
			kind = "unwanted"
		}
		p.Items = append(p.Items, state.Item{ID: fmt.Sprintf("q%d", at+i), Kind: kind, Subject: s, Created: time.Now().Add(time.Duration(at+i) * time.Millisecond),
			Immutable: true, Body: fmt.Appendf(nil, `{"n":%d,"text":%q}`, at+i, strings.Repeat("x", size))})
	}
	return p
}

func (r *rig) key(seq uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq == 0 || seq > uint64(len(r.logged)) {
		return ""
	}
	return r.logged[seq-1]
}

// to is a sink of the configuration that is s.
func to(name string, s sink.Sink) delivery.Sink {
	_, many := s.(sink.Parallel)
	return delivery.Sink{Name: name, Key: "1", Parallel: many, Open: func() (sink.Sink, error) { return s, nil }}
}

// with is a sink whose settings are changed.
func with(s delivery.Sink, change func(s *delivery.Sink)) delivery.Sink {
	change(&s)
	return s
}

// retrying is a sink with these bounds of its backoff.
func retrying(s delivery.Sink, lowest, highest time.Duration) delivery.Sink {
	s.RetryInitial, s.RetryMax = lowest, highest
	return s
}

// wanting is a sink that does not want events of subjects that begin with an x.
func wanting(s delivery.Sink) delivery.Sink {
	s.Wants = func(_, typ string) bool { return !strings.Contains(typ, "unwanted") }
	return s
}

// new makes a delivery of the current process.
func (r *rig) new(sinks ...delivery.Sink) *delivery.Delivery {
	r.t.Helper()
	r.reg = prometheus.NewPedanticRegistry()
	r.metrics = delivery.NewMetrics(r.reg)
	d, err := delivery.New(delivery.Config{DB: r.db, Log: slog.New(slog.NewTextHandler(&r.out, nil)), Metrics: r.metrics,
		Grace: 10 * time.Second, Trusted: func() bool { return !r.untrusted.Load() }, Sinks: r.defaults(sinks)})
	if err != nil {
		r.t.Fatal(err)
	}
	d.SetWindow(r.window)
	return d
}

// defaults fills in what a test did not say.
func (r *rig) defaults(sinks []delivery.Sink) []delivery.Sink {
	for i := range sinks {
		s := &sinks[i]
		s.Type, s.FromBeginning = "webhook", true
		if s.RetryInitial == 0 {
			s.RetryInitial, s.RetryMax = 5*time.Second, time.Hour
		}
	}
	return sinks
}

// start runs a delivery; stop ends it and waits.
func (r *rig) start(sinks ...delivery.Sink) (stop func()) {
	r.t.Helper()
	_, stop = r.startAs(sinks...)
	return stop
}

func (r *rig) startAs(sinks ...delivery.Sink) (d *delivery.Delivery, stop func()) {
	r.t.Helper()
	d = r.new(sinks...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx)
	}()
	return d, func() {
		cancel()
		<-done
	}
}

// settle lets everything happen that happens without waiting.
func settle() { synctest.Wait() }

func (r *rig) backlog(name string) int {
	r.t.Helper()
	b, err := r.db.Backlog(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return b.Events
}

func (r *rig) position(name string) uint64 {
	r.t.Helper()
	s, err := r.db.OpenSink(name, "webhook", true, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Position
}

// paper is a strict sink in the order of the log whose medium outlives the
// process. It fails the test when lines come before Resume, when the medium holds
// less than the state counts, and when what it holds beyond that is not what the
// log would write next.
type paper struct {
	r       *rig
	medium  *medium
	fail    func(call int, written *[]string, lines []string) error // nil: all are written
	resumed bool
	lines   int // that Checkpoint counts
}

// medium is what is on the disk.
type medium struct {
	mu    sync.Mutex
	lines []string
	calls int
}

func (p *paper) Close() error { return nil }

func (p *paper) Deliver(_ context.Context, events []event.Logged) error {
	if p.r.isKilled() {
		return errKilled
	}
	if !p.resumed {
		p.r.t.Error("Deliver before Resume")
	}
	p.medium.mu.Lock()
	defer p.medium.mu.Unlock()
	call := p.medium.calls
	p.medium.calls++
	var lines []string
	for _, e := range events {
		lines = append(lines, string(e.JSON))
	}
	if p.fail != nil {
		if err := p.fail(call, &p.medium.lines, lines); err != nil {
			p.resumed = false
			return err
		}
	}
	p.medium.lines = append(p.medium.lines, lines...)
	p.lines = len(p.medium.lines)
	return nil
}

func (p *paper) Resume(_ context.Context, checkpoint []byte, next iter.Seq2[[]byte, error]) (sink.Report, error) {
	if p.r.isKilled() {
		return sink.Report{}, errKilled
	}
	p.medium.mu.Lock()
	defer p.medium.mu.Unlock()
	n := 0
	if checkpoint != nil {
		if err := json.Unmarshal(checkpoint, &n); err != nil {
			p.r.t.Error(err)
		}
	}
	if n > len(p.medium.lines) {
		p.r.t.Errorf("the state counts %d lines, the medium holds %d", n, len(p.medium.lines))
		n = len(p.medium.lines)
	}
	rest := p.medium.lines[n:]
	cut := len(rest)
	for line, err := range next {
		if err != nil {
			return sink.Report{}, err
		}
		if len(rest) == 0 {
			break
		}
		if rest[0] != string(line) {
			p.r.t.Errorf("the medium goes on with %s and the log with %s", rest[0], line)
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		p.r.t.Errorf("the medium holds %d lines that the log does not have", len(rest))
	}
	p.medium.lines, p.lines, p.resumed = p.medium.lines[:n], n, true
	return sink.Report{CutBytes: int64(cut)}, nil
}

func (p *paper) Checkpoint() []byte { return fmt.Append(nil, p.lines) }

var _ sink.Resumer = (*paper)(nil)
