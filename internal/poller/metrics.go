package poller

import (
	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// Metrics are the families of contract §9 that polling moves.
type Metrics struct {
	success *prometheus.GaugeVec
	errors  *prometheus.CounterVec
	items   *prometheus.CounterVec
	lag     *prometheus.HistogramVec
}

// NewMetrics registers the families.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		success: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncd_poll_last_success_timestamp_seconds",
			Help: "When a run of the stream was last completed; 0: never by this process."}, []string{"account", "stream"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_poll_errors_total",
			Help: "Polls that failed, by kind of failure."}, []string{"account", "stream", "reason"}),
		items: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_items_total",
			Help: "Items read, by what became of them."}, []string{"account", "stream", "action"}),
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "syncd_event_lag_seconds",
			Help:    "From an item's own time to its commit, without history.",
			Buckets: []float64{1, 2.5, 5, 10, 15, 30, 60, 300, 900, 3600, 14400, 86400}}, []string{"marketplace", "stream"}),
	}
	reg.MustRegister(m.success, m.errors, m.items, m.lag)
	return m
}

// reasonOtherSeller is the reason of poll_errors_total for a stream whose account
// is stopped, since its token belongs to another seller than before.
const reasonOtherSeller = "other_seller"

// actionUndecodable is the action of items_total for an entry that is no usable
// item.
const actionUndecodable = "undecodable"

// declare makes the families of one stream present before its first poll.
func (m *Metrics) declare(s Stream) {
	m.success.WithLabelValues(s.ID.Account, s.ID.Stream)
	m.errors.WithLabelValues(s.ID.Account, s.ID.Stream, reasonOtherSeller)
	for _, k := range []sources.Kind{sources.Temporary, sources.Unreadable, sources.RateLimited, sources.Unauthorized, sources.Payment,
		sources.Forbidden, sources.Rejected} {
		m.errors.WithLabelValues(s.ID.Account, s.ID.Stream, string(k))
	}
	for _, a := range []state.Action{state.ActionCreated, state.ActionUpdated, state.ActionSilent, state.ActionUnchanged, state.ActionStale,
		state.ActionStaged, state.ActionHeld, state.ActionAdopted, state.ActionRemoved, actionUndecodable} {
		m.items.WithLabelValues(s.ID.Account, s.ID.Stream, string(a))
	}
	m.lag.WithLabelValues(s.Marketplace, s.ID.Stream)
}

// forget takes a stream that is polled no more out of the families that have it by
// its account.
func (m *Metrics) forget(id state.StreamID) {
	of := prometheus.Labels{"account": id.Account, "stream": id.Stream}
	m.success.DeletePartialMatch(of)
	m.errors.DeletePartialMatch(of)
	m.items.DeletePartialMatch(of)
}
