// Grafana's own types of dashboards (Apache 2.0), which those that Tender writes are read with.
// They are many, so they stay out of the module of Tender.
module github.com/tenderhq/tender/e2e/grafana

go 1.26.8

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
