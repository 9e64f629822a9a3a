package logql

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tenderhq/tender"
)

func moment(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if len(strings.TrimPrefix(s, "-")) <= 10 {
			return time.Unix(n, 0).UTC(), true
		}
		return time.Unix(0, n).UTC(), true
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1e11 {
		whole, part := math.Modf(f)
		return time.Unix(int64(whole), int64(math.Round(part*1e3))*1e6).UTC(), true
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UTC(), err == nil && t.Year() > 1677 && t.Year() < 2262
}

// lapse reads a duration, or seconds.
func lapse(r *http.Request, name string, otherwise time.Duration) (time.Duration, error) {
	s := r.Form.Get(name)
	if s == "" {
		return otherwise, nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && f >= 0 && f < 1e9 {
		return time.Duration(f * float64(time.Second)), nil
	}
	if d, ok := duration(s); ok && d >= 0 {
		return d, nil
	}
	return 0, tender.Errorf(tender.Invalid, "%s=%q is no duration", name, s)
}

func count(r *http.Request, name string, otherwise, most int) (int, error) {
	s := r.Form.Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, tender.Errorf(tender.Invalid, "%s=%q is no number", name, s)
	}
	if n > most {
		return 0, tender.Errorf(tender.Invalid, "%s=%d is more than the limit of %d", name, n, most)
	}
	if n == 0 {
		return otherwise, nil
	}
	return n, nil
}

func backward(r *http.Request) (bool, error) {
	switch s := strings.ToLower(r.Form.Get("direction")); s {
	case "", "backward":
		return true, nil
	case "forward":
		return false, nil
	default:
		return false, tender.Errorf(tender.Invalid, "direction=%q is neither forward nor backward", s)
	}
}

// stepOf is the step that a request asks for, else one that makes some 250 points.
func stepOf(r *http.Request, start, end time.Time) (time.Duration, error) {
	s, err := lapse(r, "step", 0)
	if err == nil && r.Form.Get("step") != "" && s <= 0 {
		err = tender.Errorf(tender.Invalid, "step=%q must be above 0", r.Form.Get("step"))
	}
	if s == 0 {
		s = max(time.Second, end.Sub(start)/250).Truncate(time.Second)
	}
	return s, err
}
