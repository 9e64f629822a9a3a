package tender

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Update is x-tender.update: which newer images of a service are looked for, and whether it
// moves to them by itself.
type Update struct {
	Range  string `json:"range,omitempty"` // as ParseRange reads it; "": the same major version
	Auto   bool   `json:"auto,omitempty"`
	Window string `json:"window,omitempty"` // as ParseWindow reads it; "": at any time
}

// Window is when something may begin: "Sat-Sun 02:00-05:00", several with commas. Hours are those
// of the place that the moments asked about are in, or UTC.
type Window struct {
	text  string
	utc   bool
	parts []windowPart
}

type windowPart struct {
	days     [7]bool // on which it begins, from Sunday
	from, to int     // minutes of the day; to <= from: it ends on the next day
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseWindow reads one; "" is always. Invalid: it is none.
func ParseWindow(text string) (Window, error) {
	w := Window{text: strings.TrimSpace(text)}
	wrong := func(what string) (Window, error) {
		return Window{}, Errorf(Invalid, "%q is no window: %s", text, what).Hint(`such as "Sat-Sun 02:00-05:00", "22:00-04:00" or "Mon-Thu 03:00-04:00, Sun 01:00-06:00 UTC"`)
	}
	rest := w.text
	if rest == "" {
		return w, nil
	}
	if len(rest) > 500 {
		return wrong("it is too long")
	}
	if cut, ok := strings.CutSuffix(rest, " UTC"); ok {
		rest, w.utc = cut, true
	}
	var days [7]bool
	named := false
	for piece := range strings.SplitSeq(rest, ",") {
		words := strings.Fields(piece)
		if len(words) == 0 {
			return wrong("nothing stands beside a comma")
		}
		hours := ""
		if strings.Contains(words[len(words)-1], ":") {
			hours, words = words[len(words)-1], words[:len(words)-1]
		}
		if len(words) > 1 {
			return wrong("want days, then hours")
		}
		if len(words) == 1 {
			if err := addDays(&days, words[0]); err != nil {
				return wrong(err.Error())
			}
			named = true
		}
		if hours == "" { // "Sat, Sun 02:00-05:00"
			continue
		}
		p := windowPart{days: days}
		if !named {
			p.days = [7]bool{true, true, true, true, true, true, true}
		}
		var err error
		if p.from, p.to, err = hoursOf(hours); err != nil {
			return wrong(err.Error())
		}
		w.parts = append(w.parts, p)
		days, named = [7]bool{}, false
	}
	if named || len(w.parts) == 0 {
		return wrong("the hours are missing")
	}
	return w, nil
}

func addDays(days *[7]bool, text string) error {
	first, last, span := strings.Cut(strings.ToLower(text), "-")
	if !span {
		last = first
	}
	day := func(s string) int {
		for i, name := range weekdays {
			if s == name || len(s) > 3 && strings.HasPrefix(s, name) && strings.HasSuffix(s, "day") {
				return i
			}
		}
		return -1
	}
	from, to := day(first), day(last)
	if from < 0 || to < 0 {
		return fmt.Errorf("%s is no day such as Sat or Mon-Fri", text)
	}
	for i := from; ; i = (i + 1) % 7 {
		days[i] = true
		if i == to {
			return nil
		}
	}
}

func hoursOf(text string) (from, to int, err error) {
	minute := func(s string) int {
		h, m, ok := strings.Cut(s, ":")
		hour, err := strconv.Atoi(h)
		min, err2 := strconv.Atoi(m)
		if !ok || err != nil || err2 != nil || hour < 0 || hour > 24 || min < 0 || min > 59 || hour == 24 && min > 0 || len(m) != 2 {
			return -1
		}
		return hour*60 + min
	}
	a, b, ok := strings.Cut(text, "-")
	from, to = minute(a), minute(b)
	if !ok || from < 0 || to < 0 || from == 24*60 || from == to {
		return 0, 0, fmt.Errorf("%s are no hours such as 02:00-05:00", text)
	}
	return from, to, nil
}

// String is the window as it was written.
func (w Window) String() string { return w.text }

// Open reports whether now is in the window.
func (w Window) Open(now time.Time) bool {
	if len(w.parts) == 0 {
		return true
	}
	if w.utc {
		now = now.UTC()
	}
	day, minute := int(now.Weekday()), now.Hour()*60+now.Minute()
	for _, p := range w.parts {
		switch {
		case p.from < p.to:
			if p.days[day] && minute >= p.from && minute < p.to {
				return true
			}
		case p.days[day] && minute >= p.from, p.days[(day+6)%7] && minute < p.to:
			return true
		}
	}
	return false
}

// Next is when it opens after now, to the minute; now itself while it is open.
func (w Window) Next(now time.Time) time.Time {
	if w.utc {
		now = now.UTC() // people read it as they wrote the window
	}
	if w.Open(now) {
		return now
	}
	at := now.Truncate(time.Minute)
	for range 8 * 24 * 60 {
		at = at.Add(time.Minute)
		if w.Open(at) {
			return at
		}
	}
	return at
}
