package cli

import "fmt"

// The shapes below are those of a dashboard of Grafana as its files have them.

const (
	metricsSource = "tender-metrics"
	logsSource    = "tender-logs"
	// boardFormat is the version of the shape: Grafana 12's, which later ones take and turn into their own.
	boardFormat = 41
)

type object = map[string]any

// board is a dashboard, and what can be chosen above it.
type board struct {
	uid, title, about string
	choices           []choice
	panels            []panel
}

// choice is a variable that takes its values from a label.
type choice struct {
	name, label string
	values      string // an expression of Grafana's, such as label_values(up, job)
	many        bool   // several, and all of them
}

// panel is one picture of a board.
type panel struct {
	kind          string // timeseries, stat, table or logs
	title, about  string
	unit          string // Grafana's word
	width, height int    // of 24 columns
	asks          []question
	stacked       bool
	most          float64 // of the axis; 0: as it comes
	warn, bad     float64 // thresholds; 0: none. warn > bad: less is worse
	columns       []column
}

type question struct {
	expr, legend string
}

// column names one of a table, which has one for each question.
type column struct {
	name, unit string
}

func (b board) json() object {
	var list []object
	x, y, row := 0, 0, 0
	for i, p := range b.panels {
		if x+p.width > 24 {
			x, y, row = 0, y+row, 0
		}
		o := p.json(i + 1)
		o["gridPos"] = object{"x": x, "y": y, "w": p.width, "h": p.height}
		list = append(list, o)
		x, row = x+p.width, max(row, p.height)
	}
	variables := []object{}
	for _, c := range b.choices {
		v := object{
			"name": c.name, "label": c.label, "type": "query", "datasource": source("prometheus", metricsSource), "definition": c.values,
			"query": object{"qryType": 1, "query": c.values, "refId": "values"}, "refresh": 2, "sort": 1, "hide": 0,
			"includeAll": c.many, "multi": c.many, "skipUrlSync": false, "regex": "", "options": []object{}, "current": object{"text": "", "value": ""},
		}
		if c.many {
			v["current"] = object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}
		}
		variables = append(variables, v)
	}
	return object{
		"uid": b.uid, "title": b.title, "description": b.about, "tags": []string{"tender"}, "schemaVersion": boardFormat, "version": 1,
		"editable": true, "graphTooltip": 1, "timezone": "browser", "refresh": "30s", "time": object{"from": "now-1h", "to": "now"},
		"fiscalYearStartMonth": 0, "liveNow": false, "weekStart": "", "timepicker": object{},
		"annotations": object{"list": []object{}}, "templating": object{"list": variables}, "panels": list,
		"links": []object{{
			"title": "Tender", "type": "dashboards", "tags": []string{"tender"}, "asDropdown": true, "includeVars": true, "keepTime": true,
			"icon": "external link", "targetBlank": false, "tooltip": "", "url": "",
		}},
	}
}

func source(kind, uid string) object { return object{"type": kind, "uid": uid} }

func (p panel) json(id int) object {
	of := source("prometheus", metricsSource)
	if p.kind == "logs" {
		of = source("loki", logsSource)
	}
	var targets []object
	for i, q := range p.asks {
		t := object{"refId": string(rune('A' + i)), "datasource": of, "expr": q.expr, "editorMode": "code", "legendFormat": q.legend}
		switch p.kind {
		case "timeseries":
			t["range"], t["instant"], t["format"] = true, false, "time_series"
		case "stat":
			t["range"], t["instant"], t["format"] = true, false, "time_series"
		case "table":
			t["range"], t["instant"], t["format"] = false, true, "table"
		case "logs":
			t = object{"refId": "A", "datasource": of, "expr": q.expr, "editorMode": "code", "queryType": "range", "maxLines": 200}
		}
		targets = append(targets, t)
	}
	o := object{
		"id": id, "type": p.kind, "title": p.title, "description": p.about, "datasource": of, "targets": targets, "transparent": false,
		"fieldConfig": object{"defaults": p.defaults(), "overrides": []object{}}, "options": p.options(),
	}
	if p.kind == "table" {
		p.table(o)
	}
	return o
}

func (p panel) defaults() object {
	if p.kind == "logs" {
		return object{}
	}
	steps := []object{{"color": "green", "value": nil}}
	switch {
	case p.warn == 0 && p.bad == 0:
		steps[0]["color"] = "text"
	case p.warn > p.bad: // from bad over warn to good
		steps = []object{{"color": "red", "value": nil}, {"color": "orange", "value": p.bad}, {"color": "green", "value": p.warn}}
	default:
		steps = append(steps, object{"color": "orange", "value": p.warn}, object{"color": "red", "value": p.bad})
	}
	d := object{
		"unit": p.unit, "mappings": []object{}, "thresholds": object{"mode": "absolute", "steps": steps},
		"color": object{"mode": map[bool]string{true: "palette-classic", false: "thresholds"}[p.kind == "timeseries"]},
	}
	if p.kind != "table" {
		d["min"] = 0
	}
	if p.most > 0 {
		d["max"] = p.most
	}
	if p.kind == "timeseries" {
		stacking, fill := "none", 8
		if p.stacked {
			stacking, fill = "normal", 40
		}
		d["custom"] = object{
			"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": fill, "gradientMode": "none", "showPoints": "never", "pointSize": 5,
			"spanNulls": 60000, "axisPlacement": "auto", "axisLabel": "", "axisColorMode": "text", "axisBorderShow": false, "axisCenteredZero": false,
			"scaleDistribution": object{"type": "linear"}, "stacking": object{"mode": stacking, "group": "A"}, "thresholdsStyle": object{"mode": "off"},
			"barAlignment": 0, "insertNulls": false, "hideFrom": object{"legend": false, "tooltip": false, "viz": false},
		}
	}
	return d
}

func (p panel) options() object {
	switch p.kind {
	case "timeseries":
		return object{
			"legend":  object{"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull", "max"}, "sortBy": "Max", "sortDesc": true},
			"tooltip": object{"mode": "multi", "sort": "desc"},
		}
	case "stat":
		return object{
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}, "colorMode": "value", "graphMode": "area",
			"justifyMode": "auto", "orientation": "auto", "textMode": "auto", "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
		}
	case "table":
		return object{"frameIndex": 0, "showHeader": true, "cellHeight": "sm", "sortBy": []object{}, "footer": object{"show": false, "reducer": []string{"sum"}, "countRows": false, "fields": ""}}
	}
	return object{
		"showTime": true, "showLogContextToggle": false, "showLabels": false, "showCommonLabels": false, "wrapLogMessage": true, "prettifyLogMessage": false, "enableLogDetails": true,
		"dedupStrategy": "none", "sortOrder": "Descending",
	}
}

// table joins the answers of all questions into rows, one for each set of labels.
func (p panel) table(o object) {
	rename := object{}
	overrides := []object{}
	for i, c := range p.columns {
		value := fmt.Sprintf("Value #%c", 'A'+i)
		if len(p.columns) == 1 {
			value = "Value"
		}
		rename[value] = c.name
		overrides = append(overrides, object{
			"matcher":    object{"id": "byName", "options": c.name},
			"properties": []object{{"id": "unit", "value": c.unit}},
		})
	}
	o["fieldConfig"].(object)["overrides"] = overrides
	o["transformations"] = []object{
		{"id": "merge", "options": object{}},
		{"id": "organize", "options": object{"excludeByName": object{"Time": true}, "indexByName": object{}, "renameByName": rename, "includeByName": object{}}},
	}
}
