package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/event"
)

// replayArgs are the arguments of replay. Times are those at which syncd recorded the
// events, until is not included.
type replayArgs struct {
	Sink    string    `json:"sink"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // zero: now
	Account string    `json:"account,omitempty"`
	Stream  string    `json:"stream,omitempty"`
}

type replayAnswer struct {
	Events int    `json:"events"`
	Waits  string `json:"waits_for,omitempty"` // what keeps the sink from sending them
}

func (in *replayArgs) check(now time.Time) error {
	switch {
	case in.Sink == "" || in.Since.IsZero():
		return errors.New("--sink and --since are needed")
	case in.Since.After(now):
		return errors.New("--since is in the future")
	case !in.Until.IsZero() && !in.Until.After(in.Since):
		return errors.New("--until is not after --since")
	}
	return nil
}

// replay queues kept events to be sent again, as the sink selects today.
func (k *desk) replay(ctx context.Context, in replayArgs) (replayAnswer, error) {
	now := time.Now()
	if err := in.check(now); err != nil {
		return replayAnswer{}, refuse(http.StatusBadRequest, "%w", err)
	}
	sink, err := k.webhook(in.Sink, "replay")
	if err != nil {
		return replayAnswer{}, err
	}
	if in.Until.IsZero() {
		in.Until = now
	}
	n, err := k.db.QueueReplay(ctx, in.Sink, func(h event.Header) bool {
		return matches(h, in.Account, in.Stream) && sink.Select.Match(h.Account, h.Type)
	}, in.Since, in.Until)
	if n > 0 {
		k.wake(in.Sink) // also where only a part of them was queued
	}
	switch {
	case err != nil && n > 0:
		return replayAnswer{}, fmt.Errorf("%s queued, then: %w", plural(n, "event"), err)
	case err != nil:
		return replayAnswer{}, err
	case n == 0:
		if err := k.knownStreams(in.Account, in.Stream); err != nil {
			return replayAnswer{}, err
		}
		return replayAnswer{}, refuse(http.StatusConflict, "nothing to do: of what was recorded from %s to %s, nothing is kept that sink %s selects and is not on its way to it anyway",
			clockTime(in.Since), clockTime(in.Until), in.Sink)
	}
	return replayAnswer{Events: n, Waits: k.waitsFor(in.Sink)}, nil
}

// matches says whether an event is of an account and a stream; empty: of any.
func matches(h event.Header, account, stream string) bool {
	return (account == "" || h.Account == account) && (stream == "" || h.Stream == stream)
}

func newReplay(e *env) *cobra.Command {
	var in replayArgs
	var since, until string
	cmd := &cobra.Command{
		Use: "replay --sink NAME --since T [--until T] [--stream S] [--account A]", Short: "Send kept events to a webhook again", Args: noArgs,
		Long: `Replay sends a webhook those events again, with the same ids, that syncd recorded from
--since on and before --until, are still kept (state.keep_events), and that the sink's select wants
today. They go beside the new ones and outside their order, with the header
syncd-replay: true, since a receiver drops ids that it knows. What still waits for the sink is
not sent twice. Times are RFC 3339 or a duration ago (2h). Where no daemon runs the next one
sends them.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			now := time.Now()
			for _, t := range []struct {
				flag, text string
				dst        *time.Time
			}{{"--since", since, &in.Since}, {"--until", until, &in.Until}} {
				if t.text == "" {
					continue
				}
				if *t.dst, err = parseTime(t.text, now); err != nil {
					return usageError{fmt.Errorf("%s: %w", t.flag, err)}
				}
			}
			if err := in.check(now); err != nil {
				return usageError{err}
			}
			out, closed, err := onDesk(cmd.Context(), e, "replay", in, (*desk).replay)
			if err != nil {
				return err
			}
			done := plural(out.Events, "event") + " queued to be sent again"
			if closed {
				done = plural(out.Events, "event") + " queued; the next daemon sends them"
			}
			return e.say("sink "+in.Sink, done, out.Waits)
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	cmd.Flags().StringVar(&in.Sink, "sink", "", "`name` of the sink")
	cmd.Flags().StringVar(&since, "since", "", "`time` to begin at: RFC 3339, or a duration ago such as 2h")
	cmd.Flags().StringVar(&until, "until", "", "`time` to end before (default now)")
	cmd.Flags().StringVar(&in.Account, "account", "", "only events of the account of this `name`")
	cmd.Flags().StringVar(&in.Stream, "stream", "", "only events of the stream of this `name`")
	return cmd
}
