package cli

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// curve is one series of a chart.
type curve struct {
	name   string
	points []point // in the order of time
}

type point struct {
	at    time.Time
	value float64
}

// chart draws lines over time in braille: each character holds two dots across
// and four down.
type chart struct {
	start, end    time.Time
	step          time.Duration // points further apart than this are not joined
	width, height int           // of all of it without the legend, in characters; the last two rows are the times
	unit          quantity
	colour        bool
}

// colours of lines, in turn; marks are their names at the right end and in the legend.
var colours = []string{"36", "33", "35", "32", "34", "31", "96", "93", "95", "92", "94", "91"}

const marks = "abcdefghijklmnopqrstuvwxyz"

// mostLines is how many series a chart can keep apart.
const mostLines = 12

// canvas has a dot for each series: which was there first is told by its colour.
type canvas struct {
	width, height int // in characters
	dots          []uint8
	of            []int // whose colour a character has, from 1
}

func (c *canvas) set(x, y, series int) {
	if x < 0 || y < 0 || x >= c.width*2 || y >= c.height*4 {
		return
	}
	// Unicode numbers the dots of the first three rows by column, those of the fourth after them.
	bit := [4][2]uint8{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}[y%4][x%2]
	cell := y/4*c.width + x/2
	c.dots[cell] |= bit
	c.of[cell] = series
}

// join draws a straight line.
func (c *canvas) join(x0, y0, x1, y1, series int) {
	steps := max(abs(x1-x0), abs(y1-y0), 1)
	for i := range steps + 1 {
		c.set(x0+int(math.Round(float64((x1-x0)*i)/float64(steps))), y0+int(math.Round(float64((y1-y0)*i)/float64(steps))), series)
	}
}

func abs(n int) int { return max(n, -n) }

// draw returns the chart, and below it a legend.
func (c chart) draw(lines []curve) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, p := range l.points {
			if finite(p.value) {
				low, high = min(low, p.value), max(high, p.value)
			}
		}
	}
	rows := max(c.height-2, 3)
	scale := c.unit.scale(low, high, max(2, min(6, rows/3)))
	bottom, top := scale[0], scale[len(scale)-1]
	labels := map[int]string{}
	margin := 0
	row := func(v float64) int { return int(math.Round((top - v) / (top - bottom) * float64(rows*4-1))) }
	for _, v := range scale {
		labels[row(v)/4] = c.unit.say(v)
		margin = max(margin, utf8.RuneCountInString(c.unit.say(v)))
	}
	tail := 0 // room for the marks
	if len(lines) > 1 {
		tail = 4
	}
	width := max(c.width-margin-2-tail, 10)
	area := canvas{width: width, height: rows, dots: make([]uint8, width*rows), of: make([]int, width*rows)}
	span := max(c.end.Sub(c.start), time.Millisecond)
	column := func(t time.Time) int {
		return int(math.Round(float64(t.Sub(c.start)) / float64(span) * float64(width*2-1)))
	}
	ends := map[int]string{}
	for i, l := range slices.Backward(lines) { // the first one on top
		var before *point
		for _, p := range l.points {
			if !finite(p.value) {
				before = nil
				continue
			}
			x, y := column(p.at), row(p.value)
			if before != nil && p.at.Sub(before.at) <= c.step+c.step/2 {
				area.join(column(before.at), row(before.value), x, y, i+1)
			} else {
				area.set(x, y, i+1)
			}
			before = &p
		}
		if before != nil && len(lines) > 1 {
			ends[row(before.value)/4] = marks[i:i+1] + ends[row(before.value)/4]
		}
	}
	var b strings.Builder
	for y := range rows {
		axis := "│"
		if labels[y] != "" {
			axis = "┤"
		}
		b.WriteString(strings.Repeat(" ", margin-utf8.RuneCountInString(labels[y])) + labels[y] + " " + axis)
		painted := 0
		var text strings.Builder
		for x := range width {
			dots, of := area.dots[y*width+x], area.of[y*width+x]
			if c.colour && dots != 0 && of != painted {
				text.WriteString("\x1b[" + colours[(of-1)%len(colours)] + "m")
				painted = of
			}
			if dots == 0 {
				text.WriteByte(' ')
			} else {
				text.WriteRune(rune(0x2800 + int(dots)))
			}
		}
		if painted != 0 {
			text.WriteString("\x1b[0m")
		}
		if tail > 0 && ends[y] != "" {
			text.WriteString(" " + clip(ends[y], tail-1))
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	b.WriteString(c.times(margin, width))
	return b.String()
}

// times is the axis below: a stroke and a time at round moments.
func (c chart) times(margin, width int) string {
	span := c.end.Sub(c.start)
	layout, least := "15:04:05", time.Second
	switch {
	case span > 6*24*time.Hour:
		layout, least = "01-02", 24*time.Hour
	case span > 20*time.Hour:
		layout, least = "01-02 15:04", time.Minute
	case span >= 5*time.Minute:
		layout, least = "15:04", time.Minute
	}
	every := max(roundSpan(span*time.Duration(len(layout)+4)/time.Duration(width)), least)
	stroke, text := []rune(strings.Repeat("─", width)), []rune(strings.Repeat(" ", margin+2+width))
	free := 0
	_, offset := c.start.Local().Zone()
	shift := time.Duration(offset) * time.Second
	for t := c.start.Add(shift).Truncate(every).Add(-shift); !t.After(c.end); t = t.Add(every) {
		if t.Before(c.start) {
			continue
		}
		x := int(float64(t.Sub(c.start)) / float64(max(span, 1)) * float64(width-1))
		s := []rune(t.Local().Format(layout))
		at := min(max(margin+2+x-len(s)/2, 0), len(text)-len(s))
		if at < free {
			continue
		}
		stroke[x] = '┬'
		copy(text[at:], s)
		free = at + len(s) + 1
	}
	return strings.Repeat(" ", margin+1) + "└" + string(stroke) + "\n" + strings.TrimRight(string(text), " ") + "\n"
}

// roundSpan is the next span of time that people count in.
func roundSpan(d time.Duration) time.Duration {
	for _, s := range chartSteps {
		if s >= d {
			return s
		}
	}
	day := 24 * time.Hour
	return (d + day - 1).Truncate(day)
}

// legend says of each line what it is called and which values it had.
func (c chart) legend(lines []curve, width int) string {
	rows := make([][]string, 0, len(lines)+1)
	rows = append(rows, []string{"", "SERIES", "LAST", "MIN", "MAX", "AVG"})
	for i, l := range lines {
		mark := marks[i : i+1]
		if len(lines) == 1 {
			mark = ""
		}
		last, low, high, sum, n := math.NaN(), math.Inf(1), math.Inf(-1), 0.0, 0
		for _, p := range l.points {
			last = p.value
			if finite(p.value) {
				low, high, sum, n = min(low, p.value), max(high, p.value), sum+p.value, n+1
			}
		}
		if n == 0 {
			low, high, sum, n = math.NaN(), math.NaN(), math.NaN(), 1
		}
		rows = append(rows, []string{mark, l.name, c.unit.say(last), c.unit.say(low), c.unit.say(high), c.unit.say(sum / float64(n))})
	}
	wide := make([]int, 6)
	for _, r := range rows {
		for i, cell := range r {
			wide[i] = max(wide[i], utf8.RuneCountInString(cell))
		}
	}
	if others := wide[0] + wide[2] + wide[3] + wide[4] + wide[5] + 11; width > 0 {
		wide[1] = min(wide[1], max(width-others, 8))
	}
	var b strings.Builder
	for i, r := range rows {
		mark := r[0] + strings.Repeat(" ", wide[0]-len(r[0]))
		if i > 0 && c.colour {
			mark = "\x1b[" + colours[(i-1)%len(colours)] + "m" + mark + "\x1b[0m"
		}
		name := clip(r[1], wide[1])
		if wide[0] > 0 {
			b.WriteString(mark + "  ")
		}
		b.WriteString(name + strings.Repeat(" ", wide[1]-utf8.RuneCountInString(name)))
		for n := 2; n < 6; n++ {
			b.WriteString(strings.Repeat(" ", 2+wide[n]-utf8.RuneCountInString(r[n])) + r[n])
		}
		b.WriteString("\n")
	}
	return b.String()
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
