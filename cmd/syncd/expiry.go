package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// token is one token in use, and when it ends.
type token struct {
	account string
	seller  string
	source  string // where the configuration has it from
	expires time.Time
}

// expirySteps are how long before its end a token is warned of, each once.
var expirySteps = []time.Duration{30 * 24 * time.Hour, 7 * 24 * time.Hour, 24 * time.Hour, 0}

// expiryWarning says that a token has expired or will within 30 days; empty: it
// lasts, or does not say.
func expiryWarning(expires, now time.Time) string {
	const renew = ": make a new one in the seller's portal"
	left := expires.Sub(now)
	switch {
	case expires.IsZero() || left > expirySteps[0]:
		return ""
	case left <= 0:
		return "the token has expired" + renew
	case left <= 24*time.Hour:
		return "the token expires within a day" + renew
	}
	return fmt.Sprintf("the token expires in %d days%s", int(math.Ceil(left.Hours()/24)), renew)
}

// tokens are those of the present configuration.
func (a *app) tokens() (out []token) {
	for _, account := range a.config().Accounts {
		out = append(out, tokensOf(account)...)
	}
	return out
}

// watchExpiry warns of each token when it is first seen, and then 30, 7 and 1 days
// before its end and at its end, until ctx ends.
func watchExpiry(ctx context.Context, log *slog.Logger, tokens func() []token) {
	// By the wall clock, and often enough for one that was set or a machine that slept.
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	var known map[token]bool
	var told time.Time
	for {
		now, seen := time.Now(), make(map[token]bool)
		for _, t := range tokens() {
			seen[t] = true
			step := !known[t]
			for _, d := range expirySteps {
				at := t.expires.Add(-d)
				step = step || told.Round(0).Before(at) && !now.Round(0).Before(at)
			}
			if text := expiryWarning(t.expires, now); text != "" && step {
				level := slog.LevelWarn
				if t.expires.Sub(now) <= 24*time.Hour {
					level = slog.LevelError
				}
				log.Log(ctx, level, text, "account", t.account, "token", t.source, "expires", t.expires.Format(time.RFC3339))
			}
		}
		known, told = seen, now
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
