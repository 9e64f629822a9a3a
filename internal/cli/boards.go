package cli

// boards are the dashboards for Grafana. Their series are those of cAdvisor, the node exporter and the edge.
func boards() []board { return []board{hostBoard(), projectBoard(), serviceBoard(), edgeBoard()} }

func one(expr, legend string) []question { return []question{{expr, legend}} }

func stat(title, unit, expr string) panel {
	return panel{kind: "stat", title: title, unit: unit, width: 4, height: 4, asks: one(expr, "")}
}

func (p panel) limits(warn, bad float64) panel {
	p.warn, p.bad = warn, bad
	return p
}

func graph(title, unit string, asks ...question) panel {
	return panel{kind: "timeseries", title: title, unit: unit, width: 12, height: 8, asks: asks}
}

func (p panel) stack() panel {
	p.stacked = true
	return p
}

func (p panel) upTo(most float64) panel {
	p.most = most
	return p
}

func (p panel) says(about string) panel {
	p.about = about
	return p
}

func logLines(title, expr string) panel {
	return panel{kind: "logs", title: title, width: 24, height: 10, asks: one(expr, "")}
}

func hostBoard() board {
	return board{
		uid: "tender-host", title: "Tender / Host", about: "What a host has and what of it is used.",
		choices: []choice{{name: "node", label: "Host", values: `label_values(node_uname_info, node)`}},
		panels: []panel{
			stat("Processor", "percentunit", `1 - avg(rate(node_cpu_seconds_total{node="$node", mode="idle"}[$__rate_interval]))`).limits(0.7, 0.9).upTo(1),
			stat("Memory", "percentunit", `1 - node_memory_MemAvailable_bytes{node="$node"} / node_memory_MemTotal_bytes{node="$node"}`).limits(0.8, 0.95).upTo(1),
			stat("Fullest disk", "percentunit", `max(1 - tender_engine_filesystem_avail_bytes{node="$node"} / tender_engine_filesystem_size_bytes{node="$node"} or 1 - node_filesystem_avail_bytes{node="$node"} / node_filesystem_size_bytes{node="$node"})`).limits(0.8, 0.9).upTo(1),
			stat("Load of each core", "short", `sum(node_load5{node="$node"}) / count(count by (cpu) (node_cpu_seconds_total{node="$node"}))`).limits(1, 2),
			stat("Instances", "short", `sum(tender_instance_running{node="$node"})`),
			stat("Up for", "s", `time() - node_boot_time_seconds{node="$node"}`),
			graph("Processor", "short", question{`sum by (mode) (rate(node_cpu_seconds_total{node="$node", mode!="idle"}[$__rate_interval]))`, "{{mode}}"}).stack().
				says("In cores. Steal is what the hypervisor gave to others."),
			graph("Load", "short", question{`node_load1{node="$node"}`, "1 min"}, question{`node_load5{node="$node"}`, "5 min"}, question{`node_load15{node="$node"}`, "15 min"}),
			graph("Memory", "bytes",
				question{`node_memory_MemTotal_bytes{node="$node"} - node_memory_MemAvailable_bytes{node="$node"}`, "used"},
				question{`node_memory_Cached_bytes{node="$node"}`, "cache"},
				question{`node_memory_SwapTotal_bytes{node="$node"} - node_memory_SwapFree_bytes{node="$node"}`, "swap"},
				question{`node_memory_MemTotal_bytes{node="$node"}`, "all"}),
			graph("Disks: space in use", "percentunit", question{`1 - node_filesystem_avail_bytes{node="$node"} / node_filesystem_size_bytes{node="$node"}`, "{{mountpoint}}"}).upTo(1),
			graph("Disks: inodes in use", "percentunit", question{`1 - node_filesystem_files_free{node="$node"} / node_filesystem_files{node="$node"}`, "{{mountpoint}}"}).upTo(1),
			graph("Disks: time busy", "percentunit", question{`rate(node_disk_io_time_seconds_total{node="$node"}[$__rate_interval])`, "{{device}}"}).upTo(1),
			graph("Disks: read and written", "Bps",
				question{`rate(node_disk_read_bytes_total{node="$node"}[$__rate_interval])`, "{{device}} read"},
				question{`rate(node_disk_written_bytes_total{node="$node"}[$__rate_interval])`, "{{device}} written"}),
			graph("Network", "Bps",
				question{`rate(node_network_receive_bytes_total{node="$node", device!~"lo|veth.*"}[$__rate_interval])`, "{{device}} in"},
				question{`rate(node_network_transmit_bytes_total{node="$node", device!~"lo|veth.*"}[$__rate_interval])`, "{{device}} out"}),
			graph("Processor by project", "short", question{`sum by (project) (rate(container_cpu_usage_seconds_total{node="$node"}[$__rate_interval]))`, "{{project}}"}).stack(),
			graph("Memory by project", "bytes", question{`sum by (project) (container_memory_working_set_bytes{node="$node"})`, "{{project}}"}).stack(),
		},
	}
}

func projectBoard() board {
	return board{
		uid: "tender-project", title: "Tender / Project", about: "The services of a project side by side.",
		choices: []choice{{name: "project", label: "Project", values: `label_values(container_last_seen, project)`}},
		panels: []panel{
			stat("Services", "short", `count(count by (service) (tender_instance_running{project="$project"} == 1))`),
			stat("Instances", "short", `sum(tender_instance_running{project="$project"})`),
			stat("Processor", "short", `sum(rate(container_cpu_usage_seconds_total{project="$project"}[$__rate_interval]))`).says("In cores."),
			stat("Memory", "bytes", `sum(container_memory_working_set_bytes{project="$project"})`),
			stat("Requests", "reqps", `sum(rate(tender_edge_requests_total{project="$project"}[$__rate_interval]))`),
			stat("Errors", "percentunit", `sum(rate(tender_edge_requests_total{project="$project", code_class="5xx"}[$__rate_interval])) / sum(rate(tender_edge_requests_total{project="$project"}[$__rate_interval])) or vector(0)`).
				limits(0.01, 0.05).says("The share of requests that the edge answered with 5xx."),
			graph("Requests", "reqps", question{`sum by (aim) (rate(tender_edge_requests_total{project="$project", aim!=""}[$__rate_interval]))`, "{{aim}}"}).stack(),
			graph("99 of 100 answers come within", "s", question{`histogram_quantile(0.99, sum by (aim, le) (rate(tender_edge_duration_seconds_bucket{project="$project"}[$__rate_interval])))`, "{{aim}}"}),
			graph("Processor", "short", question{`sum by (service) (rate(container_cpu_usage_seconds_total{project="$project"}[$__rate_interval]))`, "{{service}}"}).stack(),
			graph("Memory", "bytes", question{`sum by (service) (container_memory_working_set_bytes{project="$project"})`, "{{service}}"}).stack(),
			graph("Network in", "Bps", question{`sum by (service) (rate(container_network_receive_bytes_total{project="$project"}[$__rate_interval]))`, "{{service}}"}),
			graph("Network out", "Bps", question{`sum by (service) (rate(container_network_transmit_bytes_total{project="$project"}[$__rate_interval]))`, "{{service}}"}),
			{
				kind: "table", title: "Instances", width: 24, height: 9,
				asks: []question{
					{`sum by (service, instance, revision) (rate(container_cpu_usage_seconds_total{project="$project"}[$__rate_interval]))`, ""},
					{`sum by (service, instance, revision) (container_memory_working_set_bytes{project="$project"})`, ""},
					{`sum by (service, instance, revision) (tender_instance_restarts_total{project="$project"})`, ""},
					{`sum by (service, instance, revision) (tender_instance_running{project="$project"})`, ""},
				},
				columns: []column{{"Processor (cores)", "short"}, {"Memory", "bytes"}, {"Restarts", "short"}, {"Runs", "short"}},
			},
			logLines("Errors in the logs", `{project="$project"} | detected_level=~"error|critical|fatal"`),
		},
	}
}

func serviceBoard() board {
	const of = `project="$project", service="$service"`
	const routed = `project="$project", aim="$service"`
	return board{
		uid: "tender-service", title: "Tender / Service", about: "The instances of a service, and what the edge sees of it.",
		choices: []choice{
			{name: "project", label: "Project", values: `label_values(container_last_seen, project)`},
			{name: "service", label: "Service", values: `label_values(container_last_seen{project="$project"}, service)`},
		},
		panels: []panel{
			stat("Instances", "short", `sum(tender_instance_running{`+of+`})`),
			stat("Processor", "short", `sum(rate(container_cpu_usage_seconds_total{`+of+`}[$__rate_interval]))`).says("In cores."),
			stat("Memory", "bytes", `sum(container_memory_working_set_bytes{`+of+`})`),
			stat("Requests", "reqps", `sum(rate(tender_edge_requests_total{`+routed+`}[$__rate_interval])) or vector(0)`),
			stat("Errors", "percentunit", `sum(rate(tender_edge_requests_total{`+routed+`, code_class="5xx"}[$__rate_interval])) / sum(rate(tender_edge_requests_total{`+routed+`}[$__rate_interval])) or vector(0)`).limits(0.01, 0.05),
			stat("Restarts", "short", `sum(increase(tender_instance_restarts_total{`+of+`}[$__range]))`).limits(1, 3).says("In the time shown."),
			graph("Requests by status", "reqps", question{`sum by (code_class) (rate(tender_edge_requests_total{` + routed + `}[$__rate_interval]))`, "{{code_class}}"}).stack(),
			graph("Answers come within", "s",
				question{`histogram_quantile(0.5, sum by (le) (rate(tender_edge_duration_seconds_bucket{` + routed + `}[$__rate_interval])))`, "half of them"},
				question{`histogram_quantile(0.95, sum by (le) (rate(tender_edge_duration_seconds_bucket{` + routed + `}[$__rate_interval])))`, "95 of 100"},
				question{`histogram_quantile(0.99, sum by (le) (rate(tender_edge_duration_seconds_bucket{` + routed + `}[$__rate_interval])))`, "99 of 100"}),
			graph("Requests by revision", "reqps", question{`sum by (revision) (rate(tender_edge_requests_total{` + routed + `}[$__rate_interval]))`, "{{revision}}"}).stack().
				says("How a rollout moves traffic."),
			graph("Requests under way", "short", question{`sum by (instance) (tender_edge_open{` + routed + `})`, "{{instance}}"}),
			graph("Processor", "short", question{`sum by (instance) (rate(container_cpu_usage_seconds_total{` + of + `}[$__rate_interval]))`, "{{instance}}"}).says("In cores."),
			graph("Waiting for the processor", "percentunit", question{`sum by (instance) (rate(container_cpu_cfs_throttled_seconds_total{` + of + `}[$__rate_interval]))`, "{{instance}}"}).
				says("The share of the time in which the limit made the instance wait."),
			graph("Memory", "bytes",
				question{`sum by (instance) (container_memory_working_set_bytes{` + of + `})`, "{{instance}}"},
				question{`max(container_spec_memory_limit_bytes{` + of + `} > 0)`, "limit"}),
			graph("Ended for memory", "short", question{`sum by (instance) (increase(container_oom_events_total{` + of + `}[$__rate_interval]))`, "{{instance}}"}),
			graph("Network", "Bps",
				question{`sum by (instance) (rate(container_network_receive_bytes_total{` + of + `}[$__rate_interval]))`, "{{instance}} in"},
				question{`sum by (instance) (rate(container_network_transmit_bytes_total{` + of + `}[$__rate_interval]))`, "{{instance}} out"}),
			graph("Disk", "Bps",
				question{`sum by (instance) (rate(container_fs_reads_bytes_total{` + of + `}[$__rate_interval]))`, "{{instance}} read"},
				question{`sum by (instance) (rate(container_fs_writes_bytes_total{` + of + `}[$__rate_interval]))`, "{{instance}} written"}),
			graph("Threads", "short", question{`sum by (instance) (container_threads{` + of + `})`, "{{instance}}"}),
			graph("Open files", "short", question{`sum by (instance) (container_file_descriptors{` + of + `})`, "{{instance}}"}),
			logLines("Logs", `{project="$project", service="$service"}`),
		},
	}
}

func edgeBoard() board {
	const of = `project=~"$project"`
	return board{
		uid: "tender-edge", title: "Tender / Edge", about: "What comes in from outside and how it is answered.",
		choices: []choice{{name: "project", label: "Project", values: `label_values(tender_edge_requests_total, project)`, many: true}},
		panels: []panel{
			stat("Requests", "reqps", `sum(rate(tender_edge_requests_total{`+of+`}[$__rate_interval]))`),
			stat("Errors", "percentunit", `sum(rate(tender_edge_requests_total{`+of+`, code_class="5xx"}[$__rate_interval])) / sum(rate(tender_edge_requests_total{`+of+`}[$__rate_interval])) or vector(0)`).limits(0.01, 0.05),
			stat("99 of 100 within", "s", `histogram_quantile(0.99, sum by (le) (rate(tender_edge_duration_seconds_bucket{`+of+`}[$__rate_interval])))`).limits(0.5, 2),
			stat("Under way", "short", `sum(tender_edge_open{`+of+`})`),
			stat("Waiting", "short", `sum(tender_edge_waiting{`+of+`}) or vector(0)`).limits(1, 50).says("Requests that wait because nothing serves, or the route is paused."),
			stat("Targets down", "short", `count(tender_edge_up{`+of+`, instance!=""} == 0) or vector(0)`).limits(1, 2),
			graph("Requests by project", "reqps", question{`sum by (project) (rate(tender_edge_requests_total{` + of + `}[$__rate_interval]))`, "{{project}}"}).stack(),
			graph("Requests by status", "reqps", question{`sum by (code_class) (rate(tender_edge_requests_total{` + of + `}[$__rate_interval]))`, "{{code_class}}"}).stack(),
			graph("Requests by route", "reqps", question{`sum by (project, route, port) (rate(tender_edge_requests_total{` + of + `}[$__rate_interval]))`, "{{project}} {{route}}{{port}}"}).stack(),
			graph("99 of 100 answers come within", "s", question{`histogram_quantile(0.99, sum by (project, aim, le) (rate(tender_edge_duration_seconds_bucket{` + of + `}[$__rate_interval])))`, "{{project}} {{aim}}"}),
			graph("Failed", "reqps", question{`sum by (project, aim) (rate(tender_edge_failed_total{` + of + `}[$__rate_interval]))`, "{{project}} {{aim}}"}).
				says("Answered by the edge itself with 502, 503 or 504, or cut off by the target."),
			graph("Bodies", "Bps",
				question{`sum by (project) (rate(tender_edge_received_bytes_total{` + of + `}[$__rate_interval]))`, "{{project}} in"},
				question{`sum by (project) (rate(tender_edge_sent_bytes_total{` + of + `}[$__rate_interval]))`, "{{project}} out"}),
			graph("Targets that get requests", "short", question{`sum by (project, aim) (tender_edge_up{` + of + `, instance!=""})`, "{{project}} {{aim}}"}),
			{
				kind: "table", title: "Certificates", about: "Until when they are good.", width: 12, height: 8,
				asks:    one(`(max by (project, host, from) (tender_edge_certificate_end_seconds{`+of+`}) > 0) - time()`, ""),
				columns: []column{{"Good for", "s"}},
			},
			logLines("Requests that failed", `{project="tender", service="edge"} | status >= 500`),
		},
	}
}
