package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// sinkStatus is a sink in /api/v1/status.
type sinkStatus struct {
	Sink        string      `json:"sink"`
	Type        string      `json:"type"`
	Backlog     int         `json:"backlog_events"`
	Oldest      time.Time   `json:"oldest_pending,omitzero"`
	InFlight    int         `json:"in_flight"`
	DeadLetters int         `json:"dead_letters"`
	DownSince   time.Time   `json:"down_since,omitzero"`
	HeldUntil   time.Time   `json:"held_until,omitzero"` // the endpoint asked to be left alone
	Paused      *pausedSink `json:"paused,omitempty"`
	Opening     string      `json:"cannot_be_opened,omitempty"`
	Failure     string      `json:"last_error,omitempty"`
	FailedAt    time.Time   `json:"last_error_at,omitzero"`
	LastAck     time.Time   `json:"last_acknowledged,omitzero"` // by this process
	Removed     time.Time   `json:"removed,omitzero"`           // from the configuration
	Retired     bool        `json:"retired,omitempty"`          // what it had not got are dead letters
}

// pausedSink is how an endpoint answered 410.
type pausedSink struct {
	Since  time.Time `json:"since"`
	Event  string    `json:"event"`
	Answer string    `json:"answer,omitempty"`
}

// sinks are those that are configured, and those that were.
func (k *desk) sinks() ([]sinkStatus, error) {
	var out []sinkStatus
	delivering := k.statuses()
	for _, s := range k.cfg.Sinks {
		d := delivering[s.Name]
		shown := sinkStatus{
			Sink: s.Name, Type: string(s.Type), InFlight: d.InFlight, DownSince: utc(d.DownSince), Opening: printable(d.Opening, answerMost),
			Failure: printable(d.LastError, answerMost), FailedAt: utc(d.LastErrorAt), LastAck: utc(d.LastAck),
		}
		if d.Hold.After(time.Now()) {
			shown.HeldUntil = utc(d.Hold)
		}
		if g := d.Gone; g != nil {
			shown.Paused = &pausedSink{Since: utc(g.At), Event: g.Event, Answer: printable(g.Answer, answerMost)}
		}
		out = append(out, shown)
	}
	removed, err := k.db.Removed()
	for _, r := range removed {
		out = append(out, sinkStatus{Sink: r.Name, Type: r.Type, Removed: utc(r.Since), Retired: r.Retired})
	}
	for i := range out {
		s := &out[i]
		backlog, backlogErr := k.db.Backlog(s.Sink)
		letters, lettersErr := k.db.CountDeadLetters(s.Sink)
		s.Backlog, s.Oldest, s.DeadLetters = backlog.Events, utc(backlog.Oldest), letters
		err = errors.Join(err, backlogErr, lettersErr)
	}
	return out, err
}

// state is how a sink is, in a few words, with the command that helps.
func (s *sinkStatus) state(now time.Time) string {
	var out []string
	switch {
	case s.Paused != nil:
		out = append(out, "paused for "+about(now.Sub(s.Paused.Since))+", since it answered 410: "+goOn(s.Sink))
	case !s.DownSince.IsZero():
		out = append(out, "down for "+about(now.Sub(s.DownSince)))
	}
	if s.Opening != "" {
		out = append(out, "cannot be opened: "+printable(s.Opening, answerMost))
	}
	if !s.HeldUntil.IsZero() {
		out = append(out, "asked to be left alone, again "+until(now, s.HeldUntil))
	}
	if s.Failure != "" && !s.FailedAt.Before(s.LastAck) {
		out = append(out, "failing: "+printable(s.Failure, answerMost))
	}
	switch {
	case s.Retired:
		out = append(out, "not configured for "+about(now.Sub(s.Removed))+": what it had not got are dead letters")
	case !s.Removed.IsZero():
		out = append(out, "not configured for "+about(now.Sub(s.Removed))+": what it has not got will be dead letters, unless it comes back")
	}
	if s.DeadLetters > 0 {
		out = append(out, "`syncd deadletter list --sink "+s.Sink+"` shows "+plural(s.DeadLetters, "dead letter"))
	}
	return cmp.Or(strings.Join(out, "; "), "ok")
}

// sinkArgs name the sink that a command is about.
type sinkArgs struct {
	Sink string `json:"sink"`
}

// resume lets a sink go on that was answered 410. One that is down is tried at once.
func (k *desk) resume(_ context.Context, in sinkArgs) (sinkArgs, error) {
	if _, err := k.webhook(in.Sink, "resume"); err != nil {
		return in, err
	}
	paused, err := k.db.ResumeSink(in.Sink)
	if err != nil {
		return in, err
	}
	if k.delivery != nil {
		paused = paused || k.statuses()[in.Sink].Down
		if err := k.delivery.Resume(in.Sink); err != nil {
			return in, err
		}
	}
	if !paused {
		return in, refuse(http.StatusConflict, "nothing to do: sink %s is not paused", in.Sink)
	}
	return in, nil
}

func newSinks(e *env) *cobra.Command {
	cmd := &cobra.Command{Use: "sinks", Short: "Care for sinks", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("expected a command of sinks: resume")}
		}}
	cmd.AddCommand(newResume(e))
	return cmd
}

func newResume(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "resume NAME", Short: "Go on after a 410",
		Long: `Resume lets a webhook go on that was paused because its endpoint answered 410 Gone.
It begins with what was refused so; nothing was lost meanwhile.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("expected NAME, of a sink")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			_, closed, err := onDesk(cmd.Context(), e, "sinks/resume", sinkArgs{Sink: args[0]}, (*desk).resume)
			switch {
			case err != nil:
				return err
			case closed:
				return e.say("sink "+args[0], "resumed; the next daemon goes on", "")
			}
			return e.say("sink "+args[0], "going on", "")
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	return cmd
}
