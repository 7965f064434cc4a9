package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"syncd/internal/clock"
	"syncd/internal/config"
	"syncd/internal/delivery"
	"syncd/internal/poller"
	"syncd/internal/sink"
	"syncd/internal/sources/apiclient"
	"syncd/internal/state"
	"syncd/internal/web"
)

// given is what build is given beside the configuration. Fields are required
// unless they say otherwise.
type given struct {
	log    *slog.Logger
	level  *slog.LevelVar // of log; nil: it stays as it is
	stdout io.Writer
	shown  bool                           // somebody shows how far it is
	extra  []delivery.Sink                // beside the configured ones; may be none
	load   func() (*config.Config, error) // reads the configuration again; nil: it stays as it is

	// Tests put a network of their own and a disk that fails in their places.
	transport http.RoundTripper               // default: apiclient.NewTransport()
	commit    func(commit func() error) error // see state.Config; may be nil
	look      time.Duration                   // how often secret files are looked at; default: refreshEvery
}

// app is syncd put together.
type app struct {
	given
	registry *prometheus.Registry
	db       *state.DB
	clock    *clock.Watch
	budgets  *apiclient.Budgets
	poller   *poller.Poller
	delivery *delivery.Delivery
	sinks    *delivery.Metrics
	deps     deps
	expiry   *prometheus.GaugeVec
	reloaded prometheus.GaugeFunc
	started  time.Time
	lines    *sink.Stdout // of all stdout sinks, and of those that a reload makes of them: a line that one has torn is finished by the next

	reconfigured chan struct{} // of size 1: retention looks at the configuration again

	// reloading is held while a configuration takes another's place, and by who must not
	// meet that.
	reloading sync.Mutex
	serving   context.Context    // guarded by reloading: of serve; nil: it does not run
	accounts  map[string]account // guarded by reloading: those that are open, by name

	mu      sync.Mutex
	cfg     *config.Config // the present one: see config
	stopped []error        // accounts that could not be opened, and why
	refused error          // why the last reload changed nothing, or not all; nil: it did
	spoilt  error          // why what secret files hold now is not in use; nil: it is
}

// config is the present configuration, which nobody changes: a reload puts another in
// its place.
func (a *app) config() *config.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cfg
}

// notOpened says which accounts could not be opened, and why.
func (a *app) notOpened() []error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped
}

// notInForce says what of the files could not be taken over, a line each.
func (a *app) notInForce() (notes []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused != nil {
		notes = append(notes, "the last reload was refused, and is to be made again: "+inALine(a.refused))
	}
	if a.spoilt != nil {
		notes = append(notes, "syncd goes on with what a secret file held before, and may not start with what it holds now: "+inALine(a.spoilt))
	}
	return notes
}

// inALine is the first line of an error, and how many more there are.
func inALine(err error) string {
	first, rest, more := strings.Cut(err.Error(), "\n")
	if !more {
		return first
	}
	return fmt.Sprintf("%s (and %s, which the log has)", first, plural(1+strings.Count(rest, "\n"), "other problem"))
}

// build puts syncd together: it opens the state and sends nothing. Close the app when
// done.
func build(cfg *config.Config, with given) (_ *app, err error) {
	a := &app{given: with, cfg: cfg, registry: prometheus.NewRegistry(), started: time.Now(), lines: sink.NewStdout(with.stdout), reconfigured: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	commit := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "syncd_state_commit_seconds",
		Help: "Duration of a transaction of the state file, fsync included.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5}})
	a.registry.MustRegister(commit)
	a.db, err = state.Open(state.Config{Path: cfg.State.Path, Observe: func(d time.Duration) { commit.Observe(d.Seconds()) }, Commit: with.commit})
	if err != nil {
		return nil, err
	}
	if a.db.Restored() {
		a.log.Warn("the state file is a backup, opened for the first time: budgets start empty, sequences go on behind all that the original can have used, "+
			"files are only appended to, and what was emitted since the backup is emitted again", "state", cfg.State.Path)
	}
	a.clock = clock.New(clock.Config{LastCommit: a.db.LastCommit(), Log: a.log})
	a.serviceMetrics()
	a.budgets = apiclient.NewBudgets(a.db.Ledger(), a.log)
	a.registry.MustRegister(a.budgets)
	if a.transport == nil {
		a.transport = apiclient.NewTransport()
	}
	// Requests and deliveries in flight at a shutdown get most of the time that
	// there is; the rest is for their commits.
	grace := cfg.ShutdownTimeout * 8 / 10
	a.deps = deps{log: a.log, budgets: a.budgets, requests: apiclient.NewMetrics(a.registry), transport: a.transport, expiry: a.expiry, grace: grace, heard: a.clock.Heard}
	var streams []poller.Stream
	a.accounts, streams, a.stopped = openAccounts(cfg, a.deps, nil)
	a.poller, err = poller.New(poller.Config{DB: a.db, Log: a.log, Metrics: poller.NewMetrics(a.registry), Streams: streams, Shown: with.shown, Trusted: a.clock.Trusted})
	if err != nil {
		return nil, err
	}
	a.sinks = delivery.NewMetrics(a.registry)
	a.delivery, err = delivery.New(delivery.Config{DB: a.db, Log: a.log, Metrics: a.sinks, Grace: grace, Trusted: a.clock.Trusted,
		Sinks: append(deliverySinks(cfg, a.lines), with.extra...)})
	if err != nil {
		return nil, err
	}
	if err := a.markSinks(cfg); err != nil { // a full disk, say: all else goes on, and retention tries again
		a.log.Error(errMarks, "err", err)
	}
	return a, nil
}

// serviceMetrics registers what belongs to no package.
func (a *app) serviceMetrics() {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncd_build_info", Help: "1; the labels say what is running."}, []string{"version", "goversion"})
	v := version()
	build.WithLabelValues(v.version, v.goVersion).Set(1)
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "syncd_state_size_bytes", Help: "Size of the state file."},
		func() float64 { return float64(a.db.Size()) })
	a.reloaded = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "syncd_config_last_reload_successful",
		Help: "1 if the configuration, as last reloaded, and what its secret files hold now are in force; 0 if one of them was refused: status says why."},
		func() float64 {
			if len(a.notInForce()) > 0 {
				return 0
			}
			return 1
		})
	a.expiry = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncd_token_expiry_timestamp_seconds", Help: "When the token of an API group expires."}, []string{"account", "group"})
	a.registry.MustRegister(build, size, a.reloaded, a.expiry, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// close closes the state. Nothing may be running.
func (a *app) close() error {
	if a.db == nil {
		return nil
	}
	return a.db.Close()
}

// errSlowShutdown says that something did not stop in time.
var errSlowShutdown = errors.New("not everything stopped within shutdown_timeout; what was not committed is done again at the next start")

// serve runs the poller, the sinks, retention and the server until ctx ends or
// one of them fails, and then waits for them as long as shutdown_timeout allows. Each
// time that hup says so the configuration is reloaded; nil: it never does.
func (a *app) serve(ctx context.Context, server *web.Server, hup <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	a.reloading.Lock()
	a.serving = ctx
	a.reloading.Unlock()
	g.Go(func() error { return a.poller.Run(ctx) })
	g.Go(func() error { // an idle poller writes nothing: a sink may be the first to find out
		select {
		case <-a.db.Broken():
			return state.ErrBroken
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		a.budgets.Run(ctx)
		return nil
	})
	g.Go(func() error {
		a.delivery.Run(ctx)
		return nil
	})
	g.Go(func() error {
		a.retain(ctx)
		return nil
	})
	g.Go(func() error {
		watchExpiry(ctx, a.log, a.tokens)
		return nil
	})
	g.Go(func() error {
		a.watch(ctx, hup)
		return nil
	})
	if server != nil {
		g.Go(func() error { return server.Run(ctx) })
	}
	done := make(chan error, 1)
	go func() {
		err := g.Wait()
		a.reloading.Lock() // a reload that somebody has asked for comes to its end before the state is closed
		defer a.reloading.Unlock()
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(a.config().ShutdownTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errSlowShutdown
	}
}

// ready says why syncd is not ready, and what else an operator should know. An
// account that is stopped does not make it unready: the others go on, and a
// restart would not mend it.
func (a *app) ready() (notes []string, err error) {
	if !a.poller.Scheduled() {
		return nil, errors.New("the streams have not been scheduled yet")
	}
	for _, err := range slices.Concat(a.notOpened(), slices.Collect(maps.Values(a.poller.Stopped()))) {
		notes = append(notes, "stopped: "+err.Error())
	}
	slices.Sort(notes)
	notes = append(notes, a.notInForce()...)
	if doubt := a.clock.Doubt(); doubt != "" {
		notes = append(notes, "nothing is deleted by age: "+doubt)
	}
	return notes, nil
}
