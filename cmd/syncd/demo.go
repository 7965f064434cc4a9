package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"syncd/internal/delivery"
	"syncd/internal/sink"
)

// demoHistory is how much of the sandbox's past the demo shows: enough to fill
// the screen at once, not so much that the news scrolls away.
const demoHistory = 3 * time.Hour

func newDemo(e *env) *cobra.Command {
	var duration time.Duration
	var dir string
	cmd := &cobra.Command{
		Use: "demo", Short: "Show everything at work against a simulated marketplace", Args: noArgs,
		Long: `Demo polls an account of each simulated marketplace, prints each event as one line, and
writes a file sink, all in one directory. It needs no account and no network. Ctrl-C
ends it and prints what was polled, emitted and spent, and how near the budget it came.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.demo(cmd.Context(), duration, dir) },
	}
	cmd.Flags().Var((*durationFlag)(&duration), "duration", "end by itself after `D`; without it, at Ctrl-C")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` for its files, empty or new (default: a new one in the temporary directory)")
	return cmd
}

func (e *env) demo(ctx context.Context, duration time.Duration, dir string) (err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	if duration > 0 {
		// No deadline: a request that has to wait longer is not an error.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer time.AfterFunc(duration, cancel).Stop()
	}
	if dir, err = makeDir(dir, "syncd-demo-"); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "syncd.db")); err == nil {
		return usageError{fmt.Errorf("--dir %s holds the state of another run: give an empty directory or a new one, since the demo begins anew each time", dir)}
	}
	sim, err := newSimulation(uint64(time.Now().UnixNano()))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	start := time.Now().Add(-demoHistory).UTC().Format(time.RFC3339)
	path, err := simulatedConfig{dir: dir, url: "http://" + l.Addr().String(), start: start, log: "warn", often: true}.write(sim)
	if err != nil {
		return err
	}
	quiet := *e
	quiet.configPath = path
	cfg, err := quiet.loadConfig()
	if err != nil {
		return err
	}
	log, _ := newLogger(e.stderr, e.getenv, cfg.Log)
	a, err := build(cfg, given{log: log, stdout: e.stdout, shown: true, extra: []delivery.Sink{{
		Name: "screen", Type: "screen", FromBeginning: true,
		Open: func() (sink.Sink, error) {
			return &screen{w: e.stdout, color: isTerminal(e.stdout) && e.getenv("NO_COLOR") == ""}, nil
		},
	}}})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "An account of a simulated Wildberries and one of a simulated Yandex Market, polled within their budgets. Files: %s. Ctrl-C ends it.\n\n", dir)
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.serve(gctx, nil, nil) })
	g.Go(func() error { return serveSandbox(gctx, l, sim) })
	err = g.Wait()
	if errors.Is(err, errSlowShutdown) {
		return err
	}
	return errors.Join(err, e.summary(a, sim, dir, time.Since(began)), a.close())
}

// summary prints what was polled, emitted and spent.
func (e *env) summary(a *app, sim simulation, dir string, took time.Duration) error {
	counts, err := gather(a.registry)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nIn %s:\n\nSTREAM\tREQUESTS\tITEMS READ\tNEW\tCHANGED\n", took.Round(time.Second))
	for _, account := range a.config().Accounts {
		for _, s := range account.Streams {
			if !s.Enabled {
				continue
			}
			of := func(family string, label ...string) float64 {
				return counts.sum(family, append([]string{"account", account.Name, "stream", s.Name}, label...)...)
			}
			fmt.Fprintf(t, "%s/%s\t%.0f\t%.0f\t%.0f\t%.0f\n", account.Name, s.Name, of("syncd_api_requests_total"), of("syncd_items_total"),
				of("syncd_items_total", "action", "created"), of("syncd_items_total", "action", "updated"))
		}
	}
	fmt.Fprintln(t, "\nBUDGET\tREQUESTS\tREFUSED BY THE API\tVIOLATIONS\tCLOSEST REQUEST")
	closest := func(d *time.Duration) string {
		if d == nil {
			return "-"
		}
		return fmt.Sprintf("%s after it was allowed", d.Round(time.Millisecond))
	}
	for _, b := range sim.wildberries.Stats().Buckets {
		fmt.Fprintf(t, "%s, %s\t%d\t%d\t%d\t%s\n", b.SellerName, b.Group, b.Requests, b.Refused, b.Violations, closest(b.ClosestCall))
	}
	for _, b := range sim.yandexMarket.Stats().Budgets {
		fmt.Fprintf(t, "%s, %s\t%d\t%d\t%d\t%s\n", b.Entity, b.Method, b.Requests, b.Refused, b.Violations, closest(b.ClosestCall))
	}
	fmt.Fprintf(t, "\nEmitted:\t%.0f events, each once in %s\n", counts.sum("syncd_sink_events_total", "sink", "archive", "outcome", "acknowledged"), filepath.Join(dir, "events.ndjson"))
	return t.Flush()
}
