package delivery

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/state"
)

// Metrics are the families of contract §9 that delivery moves. It is a collector
// for what waits, which is read from the state at each scrape.
type Metrics struct {
	events  *prometheus.CounterVec
	delay   *prometheus.HistogramVec
	backlog *prometheus.Desc
	oldest  *prometheus.Desc

	mu    sync.Mutex
	db    *state.DB
	sinks []string
}

// NewMetrics registers the families.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_sink_events_total",
			Help: "Events by what became of an attempt: acknowledged, failed (it waits for the next one), or skipped (the sink does not want it)."}, []string{"sink", "outcome"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "syncd_sink_delivery_seconds",
			Help:    "From an event's commit to its acknowledgement.",
			Buckets: []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300, 3600, 14400, 86400, 345600}}, []string{"sink"}),
		backlog: prometheus.NewDesc("syncd_sink_backlog_events", "Events that the sink has still to get, retry queue included.", []string{"sink"}, nil),
		oldest:  prometheus.NewDesc("syncd_sink_oldest_pending_timestamp_seconds", "When the oldest event that the sink has still to get was recorded; 0: none waits.", []string{"sink"}, nil),
	}
	reg.MustRegister(m.events, m.delay, m)
	return m
}

func (m *Metrics) declare(db *state.DB, name string) {
	for _, o := range []string{"acknowledged", "failed", "skipped"} {
		m.events.WithLabelValues(name, o)
	}
	m.delay.WithLabelValues(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.db, m.sinks = db, append(m.sinks, name)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.backlog
	ch <- m.oldest
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	db, sinks := m.db, m.sinks
	m.mu.Unlock()
	for _, name := range sinks {
		b, err := db.Backlog(name)
		if err != nil {
			ch <- prometheus.NewInvalidMetric(m.backlog, err)
			continue
		}
		at := 0.0
		if !b.Oldest.IsZero() {
			at = float64(b.Oldest.UnixMilli()) / 1000
		}
		ch <- prometheus.MustNewConstMetric(m.backlog, prometheus.GaugeValue, float64(b.Events), name)
		ch <- prometheus.MustNewConstMetric(m.oldest, prometheus.GaugeValue, at, name)
	}
}
