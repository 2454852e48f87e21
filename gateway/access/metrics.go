package access

import "github.com/prometheus/client_golang/prometheus"

var (
	refusedDesc = prometheus.NewDesc("dotring_access_token_refused_total",
		"Requests refused since their token was at a limit of its own: operations per_second, or requests at_once.", []string{"token", "limit"}, nil)
	underWayDesc = prometheus.NewDesc("dotring_access_token_in_flight_requests",
		"Requests for keys under way, of each token that has limits.", []string{"token"}, nil)
)

// Describe is that of prometheus.Collector. A Guard exports what the tokens that have limits took of them; there are as many
// labels as such tokens in the file.
func (g *Guard) Describe(to chan<- *prometheus.Desc) {
	to <- refusedDesc
	to <- underWayDesc
}

// Collect is that of prometheus.Collector.
func (g *Guard) Collect(to chan<- prometheus.Metric) {
	for _, p := range g.rules.Load().principals {
		if p.use == nil || !p.limits.any() {
			continue
		}
		to <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(p.use.tooFast.Load()), p.name, "per_second")
		to <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(p.use.tooMany.Load()), p.name, "at_once")
		to <- prometheus.MustNewConstMetric(underWayDesc, prometheus.GaugeValue, float64(p.use.underWay.Load()), p.name)
	}
}
