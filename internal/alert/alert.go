// Package alert groups alerts and sends them.
package alert

import (
	_ "github.com/prometheus/alertmanager/api"
	_ "github.com/prometheus/alertmanager/config/receiver"
	_ "github.com/prometheus/alertmanager/dispatch"
	_ "github.com/prometheus/alertmanager/eventrecorder"
	_ "github.com/prometheus/alertmanager/inhibit"
	_ "github.com/prometheus/alertmanager/marker"
	_ "github.com/prometheus/alertmanager/nflog"
	_ "github.com/prometheus/alertmanager/notify"
	_ "github.com/prometheus/alertmanager/provider/mem"
	_ "github.com/prometheus/alertmanager/silence"
	_ "github.com/prometheus/alertmanager/template"
	_ "github.com/prometheus/alertmanager/timeinterval"
)
