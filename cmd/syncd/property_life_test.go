package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/sources/apiclient"
)

// life is one life of the daemon: all that `syncd run` puts together but the
// server, on the state file that the last life has left.
type life struct {
	rig       *rig
	app       *app
	transport *http.Transport
	cancel    context.CancelFunc
	done      chan error // what serve returned, once

	// How it dies. Commits run side by side with the test.
	fuse   atomic.Int64 // commits until it dies; 0 or less: it does not
	effect atomic.Bool  // the last of them takes effect
	full   atomic.Int64 // so many commits fail for want of room, and it lives on

	killing sync.Once
	down    chan struct{} // closed when it dies

	mu    sync.Mutex
	conns map[net.Conn]bool
	died  time.Time // zero: it lives, or was stopped in order
}

// start begins a life. An error is one that ended it before it began.
func (s *rig) start() (*life, error) {
	p := &life{rig: s, done: make(chan error, 1), down: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.transport = apiclient.NewTransport()
	p.transport.Proxy, p.transport.DialContext = nil, p.dial
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	if s.r.Float64() < s.deadly {
		p.fuse.Store(1 + s.r.Int64N(pick(s.r, []int64{6, 60})))
		p.effect.Store(s.r.IntN(2) == 0)
	}
	if err := p.build(); err != nil {
		cancel()
		return nil, err
	}
	s.mu.Lock()
	s.proc = p
	s.mu.Unlock()
	go func() { p.done <- p.app.serve(ctx, nil, nil) }()
	return p, nil
}

// build is the app's build with another network, a state that can fail, and the
// receiver.
func (p *life) build() (err error) {
	s := p.rig
	p.app, err = build(s.cfg, given{log: s.log, stdout: io.Discard, transport: p, commit: p.commit, extra: []delivery.Sink{{
		Name: "receiver", Type: "webhook", Parallel: true, Open: func() (sink.Sink, error) { return &line{p}, nil },
		FromBeginning: true, RetryInitial: time.Second, RetryMax: time.Minute,
	}}})
	if err != nil {
		return err
	}
	if stopped := p.app.notOpened(); len(stopped) > 0 {
		return errors.Join(append(stopped, p.app.close())...)
	}
	return nil
}

func (p *life) dead() bool {
	select {
	case <-p.down:
		return true
	default:
		return false
	}
}

// die is `kill -9`: from here on nothing leaves the process, and nothing that it
// does stays. What is on the wire still arrives.
func (p *life) die() {
	p.killing.Do(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.died = time.Now()
		close(p.down)
		for c := range p.conns {
			_ = c.Close()
		}
		p.cancel()
		p.rig.mu.Lock()
		defer p.rig.mu.Unlock()
		p.rig.deaths = append(p.rig.deaths, p.died)
	})
}

// diedWithin says whether it died so soon after t.
func (p *life) diedWithin(t time.Time, d time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.died.IsZero() && p.died.Before(t.Add(d))
}

func (p *life) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := p.rig.net.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead() {
		_ = c.Close()
		return nil, errDead
	}
	p.conns[c] = true
	return c, nil
}

var errNoRoom = errors.New("no space left on device")

// commit stands around every commit of the state.
func (p *life) commit(commit func() error) error {
	if p.dead() {
		return errDead
	}
	if p.full.Load() > 0 && p.full.Add(-1) >= 0 {
		return errNoRoom
	}
	if p.fuse.Load() > 0 && p.fuse.Add(-1) == 0 {
		if p.effect.Load() {
			_ = commit() // whatever it says, nobody hears it
		}
		p.die()
		return errDead
	}
	err := commit()
	if err == nil { // else nothing was written
		p.rig.commits.Add(1)
	}
	return err
}

// end waits until nothing of the life runs any more, and lets go of its files.
func (p *life) end(t testing.TB) {
	err := <-p.done
	if err != nil && !p.dead() {
		t.Errorf("the daemon ended: %v", err)
	}
	p.rig.mu.Lock()
	p.rig.proc = nil
	p.rig.mu.Unlock()
	if err := p.app.close(); err != nil {
		t.Errorf("close: %v", err)
	}
	p.transport.CloseIdleConnections()
}

// endpoint is the webhook's other side. It notes what comes in the order in which
// it comes, and refuses by chance.
type endpoint struct {
	mu      sync.Mutex
	r       *rand.Rand
	flaky   float64 // share that is refused
	lost    float64 // share whose acknowledgement gets lost
	calls   []delivered
	current map[string]bool // partition keys that are being delivered
	wrong   []string
}

type delivered struct {
	id    string
	line  string
	acked bool
}

// line is the way from one process to the receiver.
type line struct{ p *life }

var _ sink.Parallel = (*line)(nil)

func (*line) Parallel() int { return 4 }
func (*line) Close() error  { return nil }

// Redeliver is not asked for: nobody replays, and nothing is given up.
func (l *line) Redeliver(ctx context.Context, _ sink.Aside, events []event.Logged) error {
	return l.Deliver(ctx, events)
}

func (l *line) Deliver(ctx context.Context, events []event.Logged) error {
	r := l.p.rig.receiver
	e := events[0]
	r.mu.Lock()
	if len(events) != 1 || r.current[e.PartitionKey] {
		r.wrong = append(r.wrong, "side by side: "+e.PartitionKey)
	}
	r.current[e.PartitionKey] = true
	there, back := time.Duration(r.r.Int64N(int64(300*time.Millisecond))), time.Duration(r.r.Int64N(int64(300*time.Millisecond)))
	refuse, lose := r.r.Float64() < r.flaky, r.r.Float64() < r.lost
	status := []int{500, 503, 429, 404}[r.r.IntN(4)]
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.current, e.PartitionKey)
	}()
	if err := l.travel(ctx, there); err != nil {
		return err
	}
	r.mu.Lock()
	r.calls = append(r.calls, delivered{e.ID, string(e.JSON), !refuse})
	r.mu.Unlock()
	if err := l.travel(ctx, back); err != nil {
		return err
	}
	switch {
	case refuse && status == 404:
		return &sink.Error{Kind: sink.Permanent, Status: status}
	case refuse && status == 429:
		return &sink.Error{Status: status, RetryAfter: 10 * time.Second}
	case refuse:
		return &sink.Error{Status: status}
	case lose:
		return &sink.Error{Err: errors.New("connection reset")}
	}
	return nil
}

func (l *line) travel(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-l.p.down:
		return errDead
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
