package main

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// families are the metrics of one moment. The summaries of `once` and `demo` read
// them, so that they cannot say anything else than the metrics do.
type families []*dto.MetricFamily

func gather(g prometheus.Gatherer) (families, error) {
	f, err := g.Gather()
	if err != nil {
		return nil, fmt.Errorf("read the metrics: %w", err)
	}
	return f, nil
}

// sum adds up the counters and gauges of a family that have the given labels, in
// pairs of name and value; a pair without a name is left out.
func (f families) sum(family string, labels ...string) float64 {
	total := 0.0
	for _, mf := range f {
		if mf.GetName() != family {
			continue
		}
		for _, m := range mf.GetMetric() {
			if hasLabels(m, labels) {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}

func hasLabels(m *dto.Metric, pairs []string) bool {
	for i := 0; i+1 < len(pairs); i += 2 {
		found := pairs[i] == ""
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == pairs[i] && l.GetValue() == pairs[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}
