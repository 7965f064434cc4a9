package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"syncd/internal/config"
	"syncd/internal/delivery"
	"syncd/internal/state"
	"syncd/internal/web"
)

// desk is where the commands about sinks and about what is kept are worked on: in the
// running daemon, or, where none runs, on the closed state file. Each is a method, the
// same for both. It may be used concurrently.
type desk struct {
	db       *state.DB
	cfg      *config.Config
	delivery *delivery.Delivery // nil: no daemon runs
	metrics  *delivery.Metrics  // of delivery
}

func (a *app) desk() *desk {
	return &desk{db: a.db, cfg: a.config(), delivery: a.delivery, metrics: a.sinks}
}

// deskWork is a method of desk: arguments as JSON has them, and an answer.
type deskWork[In, Out any] func(k *desk, ctx context.Context, in In) (Out, error)

// atDesk is a command as the daemon takes it.
func atDesk[In, Out any](a *app, do deskWork[In, Out]) web.Action {
	return func(ctx context.Context, raw []byte) (any, error) {
		var in In
		if err := web.Arguments(raw, &in); err != nil {
			return nil, err
		}
		return do(a.desk(), ctx, in)
	}
}

// onDesk has a command done by the running daemon, or alone on the closed file. closed
// says that it was the latter: what was queued waits for the next daemon.
func onDesk[In, Out any](ctx context.Context, e *env, name string, in In, do deskWork[In, Out]) (out Out, closed bool, err error) {
	err = e.either(func(d *daemon) error {
		return d.callWithin(ctx, patient, http.MethodPost, "/api/v1/"+name, in, &out)
	}, func(cfg *config.Config) error {
		closed = true
		return atClosed(cfg, func(k *desk) error {
			out, err = do(k, ctx, in)
			return err
		})
	})
	return out, closed, err
}

// atClosed opens the closed state file for a piece of work.
func atClosed(cfg *config.Config, do func(k *desk) error) error {
	db, err := state.Open(state.Config{Path: cfg.State.Path})
	if err != nil {
		return err
	}
	return errors.Join(do(&desk{db: db, cfg: cfg}), db.Close())
}

// refuse is why a command is not done.
func refuse(status int, format string, args ...any) error {
	return &web.Error{Status: status, Err: fmt.Errorf(format, args...)}
}

// knownSink refuses a name that no sink has or had, and says whether the sink was ever used.
func (k *desk) knownSink(name string) (used bool, err error) {
	names, err := k.db.Sinks()
	if err != nil || slices.Contains(names, name) {
		return true, err
	}
	for _, s := range k.cfg.Sinks {
		if s.Name == name {
			return false, nil
		}
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return false, refuse(http.StatusNotFound, "there is no sink %.100q; %s", name, thereAre(slices.Compact(names)))
}

func thereAre(names []string) string {
	if len(names) == 0 {
		return "there is none at all"
	}
	return "there are: " + strings.Join(names, ", ")
}

// webhook returns the configured webhook of a name, and refuses every other sink. what
// is what only webhooks take.
func (k *desk) webhook(name, what string) (config.Sink, error) {
	used, err := k.knownSink(name)
	if err != nil {
		return config.Sink{}, err
	}
	i := slices.IndexFunc(k.cfg.Sinks, func(s config.Sink) bool { return s.Name == name })
	switch {
	case i < 0:
		return config.Sink{}, refuse(http.StatusConflict, "sink %s is not configured any more, so nothing would be sent to it: configure it again first", name)
	case k.cfg.Sinks[i].Type != config.TypeWebhook:
		return config.Sink{}, refuse(http.StatusConflict, "sink %s is of type %s, which has each event once and in order: %s is for webhooks only", name, k.cfg.Sinks[i].Type, what)
	case !used:
		return config.Sink{}, refuse(http.StatusConflict, "nothing to do: sink %s has not been used yet", name)
	}
	return k.cfg.Sinks[i], nil
}

// wake has the running daemon look at a sink's queue now.
func (k *desk) wake(sink string) {
	if k.delivery != nil {
		k.delivery.Wake(sink)
	}
}

// waitsFor says what keeps a sink from sending what was just queued, and what helps; empty:
// nothing that is known.
func (k *desk) waitsFor(sink string) string {
	if k.statuses()[sink].Gone != nil {
		return "paused, since it answered 410: " + goOn(sink)
	}
	return ""
}

// statuses are what the running daemon's delivery says of its sinks, by their names.
func (k *desk) statuses() map[string]delivery.Status {
	out := make(map[string]delivery.Status)
	if k.delivery != nil {
		for _, s := range k.delivery.Status() {
			out[s.Name] = s
		}
	}
	return out
}

// goOn is what helps where a sink was answered 410.
func goOn(sink string) string { return "`syncd sinks resume " + sink + "` goes on" }

// plural counts things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// clockTime is a time for people.
func clockTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
