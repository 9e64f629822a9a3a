package cli

import (
	"math"
	"strings"
	"testing"
	"time"
)

func rising(from, to float64, start time.Time, step time.Duration, n int) (out []point) {
	for i := range n {
		out = append(out, point{start.Add(time.Duration(i) * step), from + (to-from)*float64(i)/float64(n-1)})
	}
	return out
}

// inArea reports for each column of the chart whether there are dots.
func inArea(drawn string) (columns []bool) {
	for l := range strings.Lines(drawn) {
		if _, area, ok := strings.Cut(l, " ┤"); ok || strings.Contains(l, " │") {
			if !ok {
				_, area, _ = strings.Cut(l, " │")
			}
			for i, r := range []rune(strings.TrimRight(area, "\n")) {
				for len(columns) <= i {
					columns = append(columns, false)
				}
				columns[i] = columns[i] || r > 0x2800 && r <= 0x28ff
			}
		}
	}
	return columns
}

// Whatever is drawn keeps to its place, and time in which there was nothing stays empty.
func TestChart(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	up := rising(0, 64<<20, start, time.Minute, 61)
	gap := append(rising(5, 5, start, time.Minute, 21), point{start.Add(30 * time.Minute), math.NaN()})
	gap = append(gap, rising(5, 5, start.Add(40*time.Minute), time.Minute, 21)...)
	for name, lines := range map[string][]curve{
		"two":      {{"service=web", up}, {"service=" + strings.Repeat("long", 30), gap}},
		"gap":      {{"", gap}},
		"one":      {{"x", up[:1]}},
		"none":     {{"x", nil}},
		"infinite": {{"x", []point{{start, math.Inf(1)}, {start.Add(time.Minute), math.NaN()}}}},
		"huge":     {{"x", []point{{start, 1e300}, {start.Add(time.Minute), -1e300}}}},
	} {
		for _, width := range []int{20, 50, 79, 199} {
			for _, height := range []int{1, 8, 18} {
				c := chart{start: start, end: start.Add(time.Hour), step: time.Minute, width: width, height: height, unit: bytesUnit}
				drawn := c.draw(lines)
				for l := range strings.Lines(drawn + c.legend(lines, width)) {
					if n := len([]rune(strings.TrimRight(l, "\n"))); n > max(width, 60) {
						t.Errorf("%s in %d columns: %d: %q", name, width, n, l)
					}
					if strings.Contains(l, "\x1b") {
						t.Errorf("colours where there are none: %q", l)
					}
				}
				if n := strings.Count(drawn, "\n"); n != max(height, 5) {
					t.Errorf("%s: %d lines, want %d", name, n, height)
				}
			}
		}
	}
	c := chart{start: start, end: start.Add(time.Hour), step: time.Minute, width: 80, height: 10}
	columns := inArea(c.draw([]curve{{"", gap}}))
	n := len(columns)
	if !columns[n/6] || columns[n/2] || !columns[n*5/6] {
		t.Errorf("dots in %v", columns)
	}
	c.colour = true
	if drawn := c.draw([]curve{{"", up}, {"", gap}}); !strings.Contains(drawn, "\x1b[36m") || !strings.Contains(drawn, "\x1b[33m") || !strings.Contains(drawn, " a\n") {
		t.Errorf("no colours or marks in\n%s", drawn)
	}
}
