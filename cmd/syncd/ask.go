package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/poller"
	"syncd/internal/sources"
)

// streamArgs are the arguments of the commands about streams, on the command line
// and in the API. An empty stream: all of the account's.
type streamArgs struct {
	Account string    `json:"account"`
	Stream  string    `json:"stream,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of backfill
}

// streamAnswer is what they answer.
type streamAnswer struct {
	Streams []string `json:"streams"`
	LeftOut string   `json:"left_out,omitempty"` // of skip
}

func newPoll(e *env) *cobra.Command {
	timeout := onceTimeout
	cmd := &cobra.Command{
		Use: "poll ACCOUNT [STREAM]", Short: "Poll now, within budget",
		Long: `Poll makes the running daemon poll a stream now, or all streams of an account, as soon
as the budget allows it. Where no daemon runs it polls and delivers by itself, and
lists what is left.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageError{errors.New("expected ACCOUNT, and perhaps STREAM")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			in := streamArgs{Account: args[0]}
			if len(args) > 1 {
				in.Stream = args[1]
			}
			return e.askOr(cmd.Context(), "poll", in, "polling now", func(ctx context.Context, cfg *config.Config) error {
				return e.work(ctx, cfg, timeout, func(ctx context.Context, a *app) ([]poller.Left, error) {
					return a.poller.RunOnly(ctx, sources.News, in.Account, in.Stream)
				})
			})
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	cmd.Flags().Var((*durationFlag)(&timeout), "timeout", "where no daemon runs: give up after `D`")
	return cmd
}

func newBackfill(e *env) *cobra.Command {
	var in streamArgs
	var since string
	cmd := &cobra.Command{
		Use: "backfill --account A [--stream S] --since T", Short: "Read history again, beside the live streams", Args: noArgs,
		Long: `Backfill reads what the marketplace still shows of a stream, or of all streams of an
account, from a time on. It emits created for items that were never in an event, those
included that start kept silent, updated for changes, and nothing else, each marked
with "backfill":true. --since is RFC 3339 or a duration ago (30d), and means the items'
own time.

The running daemon does it beside its live streams and after them, and goes on after a
restart; syncd status shows how far it is. Where no daemon runs it is done now; what is
left at Ctrl-C is done by the next daemon.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.Account == "" || since == "" {
				return usageError{errors.New("--account and --since are needed")}
			}
			var err error
			now := time.Now()
			if in.Since, err = parseTime(since, now); err != nil {
				return usageError{fmt.Errorf("--since: %w", err)}
			}
			if in.Since.After(now) {
				return usageError{errors.New("--since is in the future")}
			}
			return e.askOr(cmd.Context(), "backfill", in, "reading history since "+in.Since.Format(time.RFC3339), func(ctx context.Context, cfg *config.Config) error {
				return e.work(ctx, cfg, 0, func(ctx context.Context, a *app) ([]poller.Left, error) {
					if _, err := a.poller.Backfill(in.Account, in.Stream, in.Since); err != nil {
						return nil, err
					}
					return a.poller.RunOnly(ctx, sources.Backfill, in.Account, in.Stream)
				})
			})
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	e.addStreamFlags(cmd, &in)
	cmd.Flags().StringVar(&since, "since", "", "`time` to begin at: RFC 3339, or a duration ago such as 30d")
	return cmd
}

func (e *env) addStreamFlags(cmd *cobra.Command, in *streamArgs) {
	cmd.Flags().StringVar(&in.Account, "account", "", "`name` of the account")
	cmd.Flags().StringVar(&in.Stream, "stream", "", "`name` of the stream")
}

// parseTime reads a time of the command line: RFC 3339, or a duration ago.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	d, err := config.ParseDuration(s)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("%q is neither an RFC 3339 time nor a duration ago such as 2h or 30d", s)
	}
	return now.Add(-d).UTC(), nil
}

func newState(e *env) *cobra.Command {
	cmd := &cobra.Command{Use: "state", Short: "Care for the state file", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("expected a command of state: backup, forget or skip")}
		}}
	cmd.AddCommand(newBackup(e), newForget(e), newSkip(e))
	return cmd
}

func newSkip(e *env) *cobra.Command {
	var in streamArgs
	cmd := &cobra.Command{
		Use: "skip --account A --stream S", Short: "Step over a page that fails for ever", Args: noArgs,
		Long: `Skip steps over the least that can be stepped over of what a stream would ask for next,
and says what that leaves out. It is for a page that the marketplace itself cannot
send; the log names the request. The running daemon does it only for a stream that is
failing. What is left out is seen by a later sweep or backfill once it can be sent.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.Account == "" || in.Stream == "" {
				return usageError{errors.New("--account and --stream are needed")}
			}
			return e.askOr(cmd.Context(), "state/skip", in, "going on", func(_ context.Context, cfg *config.Config) error {
				return e.withApp(cfg, func(a *app) error {
					left, err := a.poller.SkipNews(in.Account, in.Stream)
					if err != nil {
						return err
					}
					return e.printStreams("going on", streamAnswer{Streams: []string{in.Account + "/" + in.Stream}, LeftOut: left})
				})
			})
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	e.addStreamFlags(cmd, &in)
	return cmd
}

// askOr asks the running daemon for a command about streams; where none runs it
// does it alone.
func (e *env) askOr(ctx context.Context, command string, in streamArgs, doing string, alone func(context.Context, *config.Config) error) error {
	return e.either(func(d *daemon) error {
		var out streamAnswer
		if err := d.call(ctx, http.MethodPost, "/api/v1/"+command, in, &out); err != nil {
			return err
		}
		return e.printStreams(doing, out)
	}, func(cfg *config.Config) error { return alone(ctx, cfg) })
}

func (e *env) printStreams(doing string, out streamAnswer) error {
	for _, s := range out.Streams {
		if _, err := fmt.Fprintf(e.stdout, "%s: %s\n", s, doing); err != nil {
			return err
		}
	}
	if out.LeftOut != "" {
		_, err := fmt.Fprintln(e.stdout, "left out:", out.LeftOut)
		return err
	}
	return nil
}
