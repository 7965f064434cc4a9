package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"syncd/internal/config"
)

// discard is the log of what nobody needs to read.
var discard = slog.New(slog.DiscardHandler)

// newLogger returns a logger onto w: tint on a terminal, logfmt elsewhere, unless
// the configuration says otherwise; and its level, which may be changed at any time.
// It never logs a secret: those that print do so as [secret].
func newLogger(w io.Writer, getenv func(string) string, l config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(l.Level)
	return slog.New(newHandler(w, getenv, l, level)), level
}

func newHandler(w io.Writer, getenv func(string) string, l config.Log, level slog.Leveler) slog.Handler {
	format := l.Format
	if format == config.LogAuto {
		format = config.LogText
		if isTerminal(w) {
			format = config.LogTint
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case config.LogJSON:
		options.ReplaceAttr = durationText
		return slog.NewJSONHandler(w, options)
	case config.LogTint:
		return tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: getenv("NO_COLOR") != "" || !isTerminal(w)})
	}
	return slog.NewTextHandler(w, options)
}

// durationText spells durations as the other formats do: in JSON they would be numbers
// of nanoseconds.
func durationText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

func isTerminal(w io.Writer) bool {
	if above, ok := w.(*aboveBar); ok {
		w = above.p.out
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
