package delivery

import (
	"slices"
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
	dead    *prometheus.Desc

	mu    sync.Mutex
	db    *state.DB
	sinks []string
}

// sinkMetrics are the series of one sink.
type sinkMetrics struct {
	acknowledged, failed, skipped, deadLettered prometheus.Counter
	delay                                       prometheus.Observer
}

// NewMetrics registers the families.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_sink_events_total",
			Help: "Events by what became of them: acknowledged, failed (an attempt; it waits for the next one), skipped (the sink does not want it), dead_lettered (given up, the operator can retry it), or expired (a dead letter that nobody retried)."}, []string{"sink", "outcome"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "syncd_sink_delivery_seconds",
			Help:    "From an event's commit to its acknowledgement.",
			Buckets: []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300, 3600, 14400, 86400, 345600}}, []string{"sink"}),
		backlog: prometheus.NewDesc("syncd_sink_backlog_events", "Events that the sink has still to get, retry queue included.", []string{"sink"}, nil),
		oldest:  prometheus.NewDesc("syncd_sink_oldest_pending_timestamp_seconds", "When the oldest event that the sink has still to get was recorded; 0: none waits.", []string{"sink"}, nil),
		dead:    prometheus.NewDesc("syncd_sink_dead_letters", "Events that were given up and wait for the operator.", []string{"sink"}, nil),
	}
	reg.MustRegister(m.events, m.delay, m)
	return m
}

// Expired counts dead letters that were deleted because of their age.
func (m *Metrics) Expired(sink string, n int) {
	m.events.WithLabelValues(sink, "expired").Add(float64(n))
}

// DeadLettered counts events that became dead letters without an attempt.
func (m *Metrics) DeadLettered(sink string, n int) {
	m.events.WithLabelValues(sink, "dead_lettered").Add(float64(n))
}

func (m *Metrics) use(db *state.DB) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.db = db
}

// declare makes the series of a sink, all of them from the start.
func (m *Metrics) declare(name string) *sinkMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.sinks, name) {
		m.sinks = append(slices.Clone(m.sinks), name)
	}
	m.events.WithLabelValues(name, "expired")
	return &sinkMetrics{
		acknowledged: m.events.WithLabelValues(name, "acknowledged"),
		failed:       m.events.WithLabelValues(name, "failed"),
		skipped:      m.events.WithLabelValues(name, "skipped"),
		deadLettered: m.events.WithLabelValues(name, "dead_lettered"),
		delay:        m.delay.WithLabelValues(name),
	}
}

// Forget takes away what a sink that is not served any more has of series.
func (m *Metrics) Forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sinks = slices.DeleteFunc(slices.Clone(m.sinks), func(s string) bool { return s == name })
	m.events.DeletePartialMatch(prometheus.Labels{"sink": name})
	m.delay.DeleteLabelValues(name)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.backlog
	ch <- m.oldest
	ch <- m.dead
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	db, sinks := m.db, m.sinks
	m.mu.Unlock()
	if db == nil {
		return
	}
	m.collectRemoved(ch, db, sinks)
	for _, name := range sinks {
		b, err := db.Backlog(name)
		dead := 0
		if err == nil {
			dead, err = db.CountDeadLetters(name)
		}
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
		ch <- prometheus.MustNewConstMetric(m.dead, prometheus.GaugeValue, float64(dead), name)
	}
}

// collectRemoved shows the dead letters of sinks that are not served: somebody has to
// see them before they expire.
func (m *Metrics) collectRemoved(ch chan<- prometheus.Metric, db *state.DB, served []string) {
	names, err := db.Sinks()
	for _, name := range names {
		if slices.Contains(served, name) {
			continue
		}
		n, countErr := db.CountDeadLetters(name)
		if countErr != nil {
			err = countErr
		}
		if n > 0 {
			ch <- prometheus.MustNewConstMetric(m.dead, prometheus.GaugeValue, float64(n), name)
		}
	}
	if err != nil {
		ch <- prometheus.NewInvalidMetric(m.dead, err)
	}
}
