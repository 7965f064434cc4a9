package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"syncd/internal/web"
)

func newRun(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "Run the daemon", Args: noArgs,
		Long: `Run polls every enabled stream by its schedule and delivers to every sink until
SIGTERM or SIGINT. It then stops polling, finishes and commits what is in flight,
and exits 0 within shutdown_timeout. A second signal ends it at once; that loses
nothing either.

SIGHUP, or POST /-/reload, reads the configuration and every secret file again:
accounts, streams and sinks come, change and go, and what has not changed is not
disturbed. An invalid configuration changes nothing. Secret files that change are
taken over by themselves within 15 s.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.run(cmd.Context()) },
	}
	e.addConfigFlag(cmd)
	return cmd
}

func (e *env) run(ctx context.Context) error {
	// Before anything else: a reload right after the start must not end the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cfg, err := e.loadConfig()
	if err != nil {
		return err
	}
	show := newProgress(e.stderr)
	log, level := newLogger(show.Log(), e.getenv, cfg.Log)
	ctx, stop := untilSignal(ctx)
	defer stop()
	a, err := build(cfg, given{log: log, level: level, stdout: e.stdout, shown: show.terminal, load: e.readConfig})
	if err != nil {
		return err
	}
	var server *web.Server
	if cfg.Server.Listen != "" {
		server, err = web.New(web.Config{Listen: cfg.Server.Listen, Version: version().version, Log: log, Gatherer: a.registry, Ready: a.ready,
			Status: a.status, Actions: a.actions(), Downloads: a.downloads(), Reload: a.reload,
			APIToken: func() string { return a.config().Server.APIToken.Reveal() }, Loopback: cfg.Server.Loopback()})
		if err != nil {
			return errors.Join(err, a.close())
		}
	}
	log.Info("syncd is running", "version", version().version, "accounts", len(cfg.Accounts), "streams", len(a.poller.Status()),
		"sinks", len(cfg.Sinks), "state", cfg.State.Path, "listen", cfg.Server.Listen)
	showing, hide := context.WithCancel(ctx)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		show.Run(showing, a.history)
	}()
	err = a.serve(ctx, server, hup)
	hide()
	<-shown
	if errors.Is(err, errSlowShutdown) {
		return err // what still runs holds the state open
	}
	if err = errors.Join(err, a.close()); err == nil {
		log.Info("syncd has stopped; everything is committed")
	}
	return err
}

// untilSignal returns a context that ends with SIGINT, SIGTERM or one of others, but for
// those that the process was started to ignore, as nohup does. From then on the
// signals act as they do by default, so that a second one ends the process. A
// reader of standard output that goes away must not end it: its sink stalls.
func untilSignal(ctx context.Context, others ...os.Signal) (context.Context, func()) {
	others = slices.DeleteFunc(others, signal.Ignored)
	ctx, stop := signal.NotifyContext(ctx, append(others, os.Interrupt, syscall.SIGTERM)...)
	context.AfterFunc(ctx, stop)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	return ctx, func() {
		stop()
		signal.Stop(pipe)
	}
}
