package apiclient

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the counters of contract §9 that a request moves.
type Metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	throttled *prometheus.CounterVec
	wait      *prometheus.HistogramVec
}

// NewMetrics registers the families.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_api_requests_total",
			Help: "Requests sent to the marketplace, by HTTP status; code none: no answer."}, []string{"account", "stream", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "syncd_api_request_duration_seconds",
			Help:    "From sending a request to the end of its answer.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"marketplace", "endpoint"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_api_throttled_total",
			Help: "Answers 429 or 420: somebody else spends the seller's budget."}, []string{"account", "budget"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "syncd_budget_wait_seconds",
			Help:    "How long a request waited for its token.",
			Buckets: []float64{.001, .01, .1, 1, 5, 15, 60, 300, 900, 3600}}, []string{"marketplace", "budget"}),
	}
	reg.MustRegister(m.requests, m.duration, m.throttled, m.wait)
	return m
}

// Declare makes the families of one stream present before its first request.
func (m *Metrics) Declare(marketplace, account, stream, budget string, endpoints ...string) {
	m.requests.WithLabelValues(account, stream, "200")
	m.throttled.WithLabelValues(account, budget)
	m.wait.WithLabelValues(marketplace, budget)
	for _, e := range endpoints {
		m.duration.WithLabelValues(marketplace, e)
	}
}

// Forget takes an account that is not used any more out of the families that have it.
func (m *Metrics) Forget(account string) {
	of := prometheus.Labels{"account": account}
	m.requests.DeletePartialMatch(of)
	m.throttled.DeletePartialMatch(of)
}

func (m *Metrics) requested(account, stream, code string) {
	m.requests.WithLabelValues(account, stream, code).Inc()
}

func (m *Metrics) timed(marketplace, endpoint string, d time.Duration) {
	m.duration.WithLabelValues(marketplace, endpoint).Observe(d.Seconds())
}

func (m *Metrics) wasThrottled(account, budget string) {
	m.throttled.WithLabelValues(account, budget).Inc()
}

func (m *Metrics) waited(marketplace, budget string, d time.Duration) {
	m.wait.WithLabelValues(marketplace, budget).Observe(d.Seconds())
}
