package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/config"
	"syncd/internal/trouble"
	"syncd/internal/web"
)

// refreshEvery is how often secret files are looked at.
const refreshEvery = 15 * time.Second

// watch reloads the configuration when hup says so, and takes over what secret files
// hold when that changes, until ctx ends.
func (a *app) watch(ctx context.Context, hup <-chan os.Signal) {
	var bad trouble.Run
	tick := time.NewTicker(cmp.Or(a.look, refreshEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			_ = a.reload(ctx) // it has told
		case <-tick.C:
			a.refresh(&bad)
		}
	}
}

// refresh takes over changed secret files, and nothing else that was edited. One that
// cannot be used is told once, and who uses it goes on with what it held before.
func (a *app) refresh(bad *trouble.Run) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	fresh, changed, err := a.config().Refresh()
	var failed error
	if len(changed) > 0 {
		if failed = a.apply(fresh); failed == nil {
			a.log.Info("secret files have changed: they are in use now", "of", changed)
		}
	}
	if a.serving.Err() != nil { // the next start reads them
		return
	}
	a.mu.Lock()
	a.spoilt = errors.Join(err, failed)
	a.mu.Unlock()
	if err != nil {
		bad.Add(a.log, slog.LevelError, err.Error(), "a secret file cannot be used: its account or sink goes on with what it held before", "err", err)
	}
	if failed != nil {
		bad.Add(a.log, slog.LevelError, failed.Error(), "secret files have changed and could not be put in force, trying again", "err", failed)
	}
	if err == nil && failed == nil && bad.Row() > 0 {
		a.log.Info("the secret files can be used again")
		*bad = trouble.Run{} // the same failure later is another one
	}
}

var errOver = &web.Error{Status: http.StatusServiceUnavailable, Err: errors.New("syncd is being stopped: the next start reads the configuration")}

// reload reads the configuration and all secrets again, and makes it the present one.
// One that is wrong changes nothing. Calls come one after the other, each with what is
// in the files at its turn. Files that logrotate has renamed are begun anew in any case.
//
// A crash on the way is that of a daemon which then starts with the new configuration.
func (a *app) reload(context.Context) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.serving == nil || a.serving.Err() != nil {
		return errOver
	}
	defer a.delivery.Reopen()
	cfg, err := a.load()
	if problems, ok := errors.AsType[*config.Errors](err); ok {
		for _, p := range problems.Problems {
			a.log.Error("the configuration cannot be used, so nothing has changed", "problem", p.String())
		}
	} else if err == nil {
		for _, w := range cfg.Warnings {
			a.log.Warn("a doubt about the configuration", "warning", w.String())
		}
		err = a.apply(cfg)
		if a.serving.Err() != nil { // then how much of it is in force is of no account, and the end is mostly why it failed
			if err != nil {
				a.log.Info(errOver.Error(), "err", err)
			}
			return errOver
		}
		if err != nil {
			a.log.Error("the new configuration could not be put in force", "err", err)
			err = &web.Error{Status: http.StatusInternalServerError, Err: fmt.Errorf("the new configuration could not be put in force: %w", err)}
		}
	}
	a.mu.Lock()
	if a.refused = err; err == nil {
		a.spoilt = nil // it has read the secret files as well
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	a.log.Info("the configuration has been reloaded", "accounts", len(cfg.Accounts), "streams", len(a.poller.Status()), "sinks", len(cfg.Sinks))
	return nil
}

// apply puts a configuration in force: what has not changed goes on undisturbed, what
// has left is stopped when it has committed what was in flight, and what is new or has
// changed begins from where the state has it. What cannot change while syncd runs is
// told. A sink that has another type than before is an error, which changes nothing.
// Other errors are the state's; then some of it may be in force, and the next apply
// does the rest. The caller holds reloading.
func (a *app) apply(cfg *config.Config) error {
	cfg = a.keepFixed(cfg)
	sinks := append(deliverySinks(cfg, a.lines), a.extra...)
	// Before a new account is polled: a new sink gets what it finds.
	if err := a.delivery.Admit(sinks); err != nil {
		return err
	}
	accounts, streams, stopped := openAccounts(cfg, a.deps, a.accounts)
	if err := a.poller.Update(streams); err != nil {
		return err
	}
	was := a.accounts
	a.accounts = accounts
	a.letGo(cfg, was)
	if err := a.delivery.Update(sinks); err != nil {
		return err
	}
	if a.level != nil {
		a.level.Set(cfg.Log.Level)
	}
	a.mu.Lock()
	a.cfg, a.stopped = cfg, stopped
	a.mu.Unlock()
	select {
	case a.reconfigured <- struct{}{}:
	default:
	}
	if err := a.markSinks(cfg); err != nil {
		a.log.Error(errMarks, "err", err)
	}
	return nil
}

// keepFixed returns the configuration with what a running daemon keeps until its end,
// and tells of what of that was to change.
func (a *app) keepFixed(next *config.Config) *config.Config {
	now, kept := a.config(), *next
	kept.State.Path, kept.Server.Listen, kept.ShutdownTimeout, kept.Log.Format = now.State.Path, now.Server.Listen, now.ShutdownTimeout, now.Log.Format
	for _, setting := range []struct {
		key     string
		changed bool
	}{
		{"state.path", kept.State.Path != next.State.Path},
		{"server.listen", kept.Server.Listen != next.Server.Listen},
		{"shutdown_timeout", kept.ShutdownTimeout != next.ShutdownTimeout},
		{"log.format", kept.Log.Format != next.Log.Format},
	} {
		if setting.changed {
			a.log.Warn("this setting has changed, and takes effect with a restart of syncd", "setting", setting.key)
		}
	}
	return &kept
}

// letGo forgets what budgets and metrics have of accounts that are not open any more,
// or were opened anew. was are those that were open before.
func (a *app) letGo(cfg *config.Config, was map[string]account) {
	configured := make(map[string]bool)
	for _, c := range cfg.Accounts {
		configured[c.Name] = true
		if now, open := a.accounts[c.Name]; open {
			a.budgets.Forget(c.Name, now.opened)
		} else { // it cannot be opened
			a.budgets.Forget(c.Name, time.Now())
			a.expiry.DeletePartialMatch(prometheus.Labels{"account": c.Name})
		}
	}
	for name := range was {
		if !configured[name] {
			a.budgets.Forget(name, time.Now())
			a.deps.requests.Forget(name)
			a.expiry.DeletePartialMatch(prometheus.Labels{"account": name})
		}
	}
}
