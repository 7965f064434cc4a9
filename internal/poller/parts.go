package poller

import (
	"fmt"
	"log/slog"
	"time"

	"syncd/internal/sources"
)

// planEvery is how often at most a plan that has changed is told.
const planEvery = time.Hour

// reportPart tells of a part of a run that could not be read, while the run goes on
// without it: once for a row of runs, apart from failures of the walk itself.
func (w *worker) reportPart(k *walk, r *run, e *sources.Error) {
	if e == nil {
		return
	}
	w.p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, string(e.Kind)).Inc()
	args := []any{"err", e, "kind", e.Kind}
	if e.Request != "" {
		args = append(args, "request", e.Request)
	}
	if e.Hint != "" {
		args = append(args, "hint", e.Hint)
	}
	k.parts.Add(k.log, slog.LevelWarn, fmt.Sprint(e.Kind, e.Scope, e.Endpoint, e.Status), "a part of the stream cannot be read; the rest goes on, and each run tries it again", args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if k.part == nil {
		k.part = &failure{since: time.Now(), fetching: true}
	}
	k.part.times++
	k.part.err = e
	r.part = true
	if e.Kind == sources.Temporary || e.Kind == sources.Unreadable || e.Kind == sources.RateLimited {
		r.again = e
	}
}

// endParts notes the end of a run: one without such a part ends the row.
func (w *worker) endParts(k *walk, r *run) {
	k.lost, k.again = r.part, r.again
	if r.part {
		return
	}
	k.parts.Worked(k.log, "every part of the stream can be read again")
	w.mu.Lock()
	k.part = nil
	w.mu.Unlock()
}

// reportPlan keeps how often the stream can be read by its budget, and tells it
// where it is another than before.
func (w *worker) reportPlan(k *walk, plan string) {
	if plan == "" {
		return
	}
	w.mu.Lock()
	k.plan = plan
	w.mu.Unlock()
	if plan != k.planTold && (k.planAt.IsZero() || time.Since(k.planAt) >= planEvery) {
		k.planTold, k.planAt = plan, time.Now()
		k.log.Info("how often the budget allows to read this", "plan", plan)
	}
}
