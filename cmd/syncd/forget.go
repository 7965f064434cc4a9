package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/state"
)

// forgetArgs are the arguments of `state forget`: one of the two.
type forgetArgs struct {
	Account string `json:"account,omitempty"`
	Sink    string `json:"sink,omitempty"`
}

// forgotten is what was deleted.
type forgotten struct {
	Streams     int `json:"streams,omitempty"` // of an account, those with records
	Records     int `json:"records,omitempty"`
	Waiting     int `json:"waiting_events,omitempty"` // of a sink
	DeadLetters int `json:"dead_letters,omitempty"`
}

func (in *forgetArgs) check() error {
	if (in.Account == "") == (in.Sink == "") {
		return errors.New("either --account or --sink is needed")
	}
	return nil
}

// forget deletes what is known of an account or a sink that has left the configuration.
func (k *desk) forget(ctx context.Context, in forgetArgs) (out forgotten, err error) {
	if err := in.check(); err != nil {
		return out, refuse(http.StatusBadRequest, "%w", err)
	}
	if in.Account != "" {
		return k.forgetAccount(ctx, in.Account)
	}
	return k.forgetSink(ctx, in.Sink)
}

// stillConfigured refuses to delete under the feet of what runs, or would begin anew with
// the next daemon.
func stillConfigured(what, name string) error {
	return refuse(http.StatusConflict, "%s %s is still configured: remove it from the configuration and reload first", what, name)
}

func (k *desk) forgetAccount(ctx context.Context, name string) (out forgotten, err error) {
	if slices.ContainsFunc(k.cfg.Accounts, func(a config.Account) bool { return a.Name == name }) {
		return out, stillConfigured("account", name)
	}
	stream := ""
	err = k.db.ExportRecords(ctx, name, "", func(r state.Record) error {
		out.Records++
		if r.Stream != stream {
			stream = r.Stream
			out.Streams++
		}
		return nil
	})
	if err == nil {
		err = k.db.ForgetAccount(ctx, name)
	}
	if errors.Is(err, state.ErrUnknown) {
		names, err := k.accounts()
		if err != nil {
			return out, err
		}
		return out, refuse(http.StatusNotFound, "nothing is known of an account %.100q; %s", name, thereAre(names))
	}
	return out, err
}

func (k *desk) forgetSink(ctx context.Context, name string) (out forgotten, err error) {
	if slices.ContainsFunc(k.cfg.Sinks, func(s config.Sink) bool { return s.Name == name }) {
		return out, stillConfigured("sink", name)
	}
	if _, err := k.knownSink(name); err != nil {
		return out, err
	}
	backlog, err := k.db.Backlog(name)
	if err != nil {
		return out, err
	}
	out.Waiting = backlog.Events
	if out.DeadLetters, err = k.db.CountDeadLetters(name); err != nil {
		return out, err
	}
	if err := k.db.ForgetSink(ctx, name); err != nil {
		return out, err
	}
	if k.metrics != nil {
		k.metrics.Forget(name)
	}
	return out, nil
}

func newForget(e *env) *cobra.Command {
	var in forgetArgs
	cmd := &cobra.Command{
		Use: "forget (--account A | --sink NAME)", Short: "Delete what is known of an account or a sink", Args: noArgs,
		Long: `Forget deletes what the state file has of an account or a sink that has left the
configuration. Of an account: its streams, with their cursors and records. Under its name it would begin
anew. Its events stay until they are keep_events old, and budgets stay with their seller. Of a
sink: its position, its retry queue and its dead letters.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := in.check(); err != nil {
				return usageError{err}
			}
			out, _, err := onDesk(cmd.Context(), e, "state/forget", in, (*desk).forget)
			if err != nil {
				return err
			}
			if in.Account != "" {
				return e.say("account "+in.Account, "forgotten, with "+plural(out.Records, "record")+" of "+plural(out.Streams, "stream"), "")
			}
			return e.say("sink "+in.Sink, "forgotten, with "+strings.Join([]string{plural(out.Waiting, "waiting event"), plural(out.DeadLetters, "dead letter")}, " and "), "")
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	cmd.Flags().StringVar(&in.Account, "account", "", "`name` of the account")
	cmd.Flags().StringVar(&in.Sink, "sink", "", "`name` of the sink")
	return cmd
}
