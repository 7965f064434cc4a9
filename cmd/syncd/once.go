package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/delivery"
	"syncd/internal/poller"
	"syncd/internal/sources"
)

// onceTimeout is how long `once` may take where nobody says otherwise.
const onceTimeout = 10 * time.Minute

// drainAtLeast is what the sinks get where polling has used up the timeout: two
// requests that take as long as a webhook's default timeout. The help names it.
const drainAtLeast = 30 * time.Second

func newOnce(e *env) *cobra.Command {
	timeout := onceTimeout
	cmd := &cobra.Command{
		Use: "once", Short: "Bring every stream and sink up to date, then exit", Args: noArgs,
		Long: `Once reads each enabled stream up to what existed when it began, has each sink try
everything that waits for it, and exits 0 if nothing is left. What is left, because
the budget, the API or a receiver did not allow it in time, is listed, stays where it
is for the next time, and gives exit code 1.

--timeout bounds polling. The sinks have what is left of it then, but at least ` + drainAtLeast.String() + `, or
a poll that took long would leave no time for the one try; deliveries in flight at the
end may go on for most of shutdown_timeout.

It cannot run beside a daemon on the same state file.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := e.loadConfig()
			if err != nil {
				return err
			}
			return e.work(cmd.Context(), cfg, timeout, func(ctx context.Context, a *app) ([]poller.Left, error) { return a.poller.Once(ctx) })
		},
	}
	e.addConfigFlag(cmd)
	cmd.Flags().Var((*durationFlag)(&timeout), "timeout", "stop polling after `D`: 90s, 10m, 1d; waits for the budget that end later are given up at once; sinks get at least "+drainAtLeast.String())
	return cmd
}

// durationFlag is a duration as the configuration spells it, with d for days.
type durationFlag time.Duration

func (d *durationFlag) String() string {
	if *d == 0 {
		return "" // or cobra shows it as a default
	}
	return time.Duration(*d).String()
}
func (d *durationFlag) Type() string { return "duration" }
func (d *durationFlag) Set(s string) error {
	v, err := config.ParseDuration(s)
	if err != nil {
		return err
	}
	if v <= 0 {
		return errors.New("must be above 0")
	}
	*d = durationFlag(v)
	return nil
}

// withApp builds syncd for a command that needs the closed state file.
func (e *env) withApp(cfg *config.Config, do func(a *app) error) (err error) {
	log, _ := newLogger(e.stderr, e.getenv, cfg.Log)
	a, err := build(cfg, given{log: log, stdout: e.stdout, shown: isTerminal(e.stderr)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	return do(a)
}

// work polls as poll says, has each sink try everything that waits for it, and
// lists what is left. A timeout of 0: none.
func (e *env) work(ctx context.Context, cfg *config.Config, timeout time.Duration, poll func(context.Context, *app) ([]poller.Left, error)) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	show := newProgress(e.stderr)
	worked := *e
	worked.stderr = show.Log()
	return worked.withApp(cfg, func(a *app) error {
		watching, stopWatching := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() { a.budgets.Run(watching) })
		watch.Go(func() { show.Run(watching, a.going) })
		defer func() {
			stopWatching()
			watch.Wait()
		}()
		polling, deadline := ctx, time.Time{}
		if timeout > 0 {
			deadline = time.Now().Add(timeout)
			var cancel context.CancelFunc
			polling, cancel = context.WithDeadlineCause(ctx, deadline, fmt.Errorf("not done within --timeout %s", timeout))
			defer cancel()
		}
		unpolled, err := poll(polling, a)
		if err != nil {
			return err
		}
		if least := time.Now().Add(drainAtLeast); deadline.Before(least) {
			deadline = least
		}
		draining, cancelDrain := context.WithDeadlineCause(ctx, deadline, errors.New("not done in time"))
		defer cancelDrain()
		undelivered, err := a.delivery.Drain(draining)
		if err != nil {
			return err
		}
		stopWatching()
		watch.Wait()
		return e.reportOnce(a, unpolled, undelivered)
	})
}

// reportOnce prints what was done, and what is left.
func (e *env) reportOnce(a *app, unpolled []poller.Left, undelivered []delivery.Left) error {
	counts, err := gather(a.registry)
	if err != nil {
		return err
	}
	// Standard output may carry the events of a stdout sink: then the report goes
	// where the log goes.
	out := e.stdout
	for _, s := range a.config().Sinks {
		if s.Type == config.TypeStdout {
			out = e.stderr
		}
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STREAM\tREQUESTS\tNEW\tCHANGED\tKEPT SILENTLY\tKNOWN")
	for _, account := range a.config().Accounts {
		for _, s := range account.Streams {
			if !s.Enabled {
				continue
			}
			of := func(family, label, value string) float64 {
				return counts.sum(family, "account", account.Name, "stream", s.Name, label, value)
			}
			items := func(action string) float64 { return of("syncd_items_total", "action", action) }
			fmt.Fprintf(t, "%s/%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\n", account.Name, s.Name, of("syncd_api_requests_total", "", ""),
				items("created"), items("updated")+items("removed"), items("silent"), items("unchanged")+items("stale"))
		}
	}
	fmt.Fprintln(t, "\nSINK\tDELIVERED\tWAITING")
	for _, s := range a.config().Sinks {
		waiting := 0
		for _, l := range undelivered {
			if l.Sink == s.Name {
				waiting = l.Events
			}
		}
		fmt.Fprintf(t, "%s\t%.0f\t%d\n", s.Name, counts.sum("syncd_sink_events_total", "sink", s.Name, "outcome", "acknowledged"), waiting)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(a.notOpened())+len(unpolled)+len(undelivered) == 0 {
		return nil
	}
	fmt.Fprintln(out, "\nLeft:")
	for _, err := range a.notOpened() {
		fmt.Fprintf(out, "  %v\n", err)
	}
	for _, l := range unpolled {
		what := ""
		if l.Walk != "" && l.Walk != sources.News {
			what = " (" + string(l.Walk) + ")"
		}
		fmt.Fprintf(out, "  stream %s%s: %v\n", l.Stream, what, l.Err)
	}
	for _, l := range undelivered {
		if l.Events == 0 {
			continue // interrupted before it was looked
		}
		fmt.Fprintf(out, "  sink %s: %d events: %v\n", l.Sink, l.Events, l.Err)
	}
	return errLeft
}
