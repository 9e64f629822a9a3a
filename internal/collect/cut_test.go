package collect

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/logs"
)

func TestCutFindsFieldsAndKeepsWhatCameBeside(t *testing.T) {
	row := func(text string, beside ...logs.Field) logs.Row {
		return logs.Row{Time: 5, Shape: "\x00", Fields: append([]logs.Field{{Name: "message", Value: text}}, beside...)}
	}
	out := Cut(logs.Labels{{Name: "app", Value: "cron"}}, []logs.Row{
		row(`{"status":500,"app":"x","time":"2020-01-01T00:00:00Z","q":"say \"hi\""}`, logs.Field{Name: "pod", Value: "p-9"}),
		row("ERROR it broke"),
	})
	var got []string
	for i := range out {
		got = append(got, fmt.Sprintf("%d %s", out[i].Time, out[i].Text(nil)))
		for _, f := range out[i].Fields {
			switch f.Name {
			case "status", "app_extracted", "pod", "detected_level":
				got = append(got, f.Name+"="+f.Value)
			}
		}
	}
	want := []string{
		`5 {"status":500,"app":"x","time":"2020-01-01T00:00:00Z","q":"say \"hi\""}`, "status=500", "app_extracted=x", "pod=p-9",
		"5 ERROR it broke", "detected_level=error",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
