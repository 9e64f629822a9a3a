package cli

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// quantity is what a number counts, for people: it chooses how numbers and the steps of an axis look.
type quantity int

const (
	plainUnit quantity = iota
	bytesUnit
	byteRate // bytes in a second
	rateUnit // anything in a second
	secondsUnit
	ratioUnit  // 1 is all of it
	momentUnit // seconds since 1970
)

var (
	quotedText = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|'(?:[^'\\\\]|\\\\.)*'|`[^`]*`")
	braces     = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	seriesName = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*(\s*\()?`)
	rateCall   = regexp.MustCompile(`\b(?:rate|irate|deriv)\s*\(`)
	percented  = regexp.MustCompile(`\b100\s*\*|\*\s*100\b`)
)

// quantityOf guesses from the suffixes of the names in an expression of PromQL what its
// numbers count. Where it is in doubt they are plain.
func quantityOf(expr string) quantity {
	e := quotedText.ReplaceAllString(expr, "")
	e = grouping.ReplaceAllString(braces.ReplaceAllString(e, ""), "")
	var units []quantity
	var names []string
	for _, m := range seriesName.FindAllStringSubmatch(e, -1) {
		if m[1] != "" || !strings.ContainsAny(m[0], "_:") { // a function, or and, or, unless, bool, offset
			continue
		}
		names = append(names, m[0])
		units = append(units, quantityNamed(m[0]))
	}
	if len(units) == 0 || percented.MatchString(e) || strings.Contains(e, "count(") || strings.Contains(e, "count (") {
		return plainUnit
	}
	if strings.Contains(e, "/") {
		average := slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, "_sum") }) &&
			slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, "_count") })
		switch {
		case average:
			return quantityNamed(strings.TrimSuffix(names[0], "_sum"))
		case len(units) > 1 && !slices.ContainsFunc(units, func(u quantity) bool { return u != units[0] }):
			return ratioUnit
		}
		return plainUnit
	}
	first := units[0]
	if slices.ContainsFunc(units, func(u quantity) bool { return u != first }) {
		return plainUnit
	}
	switch {
	case strings.Contains(e, "histogram_quantile"):
		return first
	case !rateCall.MatchString(e):
		return first
	case first == bytesUnit:
		return byteRate
	case first == secondsUnit:
		return plainUnit // cores, or how many at a time
	}
	return rateUnit
}

// inBytes are series of cAdvisor's whose names do not say so.
var inBytes = map[string]bool{
	"container_memory_rss": true, "container_memory_cache": true, "container_memory_swap": true, "container_memory_mapped_file": true, "container_memory_kernel_usage": true,
}

func quantityNamed(name string) quantity {
	for _, s := range []string{"_total", "_bucket", "_sum"} {
		name = strings.TrimSuffix(name, s)
	}
	switch {
	case strings.HasSuffix(name, "_bytes"), inBytes[name]:
		return bytesUnit
	case strings.HasSuffix(name, "_time_seconds"), strings.HasSuffix(name, "_timestamp_seconds"), strings.HasSuffix(name, "_end_seconds"):
		if strings.Contains(name, "cpu") || strings.Contains(name, "io_time") {
			return secondsUnit
		}
		return momentUnit
	case strings.HasSuffix(name, "_seconds"):
		return secondsUnit
	case strings.HasSuffix(name, "_ratio"):
		return ratioUnit
	}
	return plainUnit
}

// say writes v with three or four digits that matter.
func (u quantity) say(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return strings.TrimPrefix(strconv.FormatFloat(v, 'g', -1, 64), "+")
	case a >= 1e18: // in no unit that people know
		return strconv.FormatFloat(v, 'e', 2, 64)
	}
	switch u {
	case bytesUnit:
		return sayBytes(v)
	case byteRate:
		return sayBytes(v) + "/s"
	case rateUnit:
		return sayNumber(v) + "/s"
	case secondsUnit:
		return saySeconds(v)
	case ratioUnit:
		return sayNumber(v*100) + "%"
	case momentUnit:
		if v > 1e8 && v < 1e11 {
			return stamp(time.UnixMilli(int64(v * 1000)))
		}
	}
	return sayNumber(v)
}

func sayNumber(v float64) string {
	a := math.Abs(v)
	switch {
	case v == 0:
		return "0"
	case a >= 1e15 || a < 1e-4:
		return strconv.FormatFloat(v, 'e', 2, 64)
	case a >= 1e12:
		return digits(v/1e12, 3) + "T"
	case a >= 1e9:
		return digits(v/1e9, 3) + "G"
	case a >= 1e7:
		return digits(v/1e6, 3) + "M"
	}
	return digits(v, 4)
}

// digits keeps that many digits that matter, and whole numbers whole.
func digits(v float64, n int) string {
	if v == 0 {
		return "0"
	}
	after := max(0, n-1-int(math.Floor(math.Log10(math.Abs(v)))))
	s := strconv.FormatFloat(v, 'f', min(after, 8), 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if s == "-0" {
		return "0"
	}
	return s
}

func sayBytes(v float64) string {
	names := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for math.Abs(v) >= 1024 && i < len(names)-1 {
		v /= 1024
		i++
	}
	return digits(v, 4) + names[i]
}

func saySeconds(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0s"
	case a < 1e-10:
		return strconv.FormatFloat(v, 'e', 2, 64) + "s"
	case a < 1e-6:
		return digits(v*1e9, 3) + "ns"
	case a < 1e-3:
		return digits(v*1e6, 3) + "µs"
	case a < 1:
		return digits(v*1e3, 3) + "ms"
	case a < 180:
		return digits(v, 3) + "s"
	case a < 3*3600:
		return digits(v/60, 3) + "m"
	case a < 72*3600:
		return digits(v/3600, 3) + "h"
	}
	return digits(v/86400, 3) + "d"
}

// scale returns the lines of an axis from low to high, at least two and about n, at numbers that are round
// in the quantity. What lies between low and high lies between the first and the last of them.
func (u quantity) scale(low, high float64, n int) []float64 {
	if low > high || math.IsNaN(low) || math.IsInf(high-low, 0) {
		low, high = 0, 1
	}
	if low >= 0 && low <= high/2 || high == 0 { // zero is near enough to be shown
		low = min(low, 0)
	}
	if low == high {
		pad := math.Abs(low) / 10
		if pad == 0 {
			pad = 1
		}
		if low > 0 {
			low -= pad
		}
		high += pad
	}
	rough := (high - low) / float64(max(n-1, 1))
	factor, divide := 1.0, 1.0
	switch u {
	case bytesUnit, byteRate:
		factor = 1024
	case secondsUnit:
		for _, big := range []float64{86400, 3600, 60} {
			if high >= 2*big {
				divide = big
				break
			}
		}
	}
	step := roundStep(rough/divide, factor) * divide
	first := math.Floor(low/step+1e-9) * step
	var out []float64
	for i := 0; i < 1000; i++ {
		v := first + float64(i)*step
		out = append(out, v)
		if v >= high-step*1e-9 {
			break
		}
	}
	return out
}

// roundStep is the next of 1, 2, 5, 10, ... that is not less than rough; with a factor of 1024, of 1, 2, 4, 8, ...
func roundStep(rough, factor float64) float64 {
	if factor != 1 && rough >= 1 {
		return math.Pow(2, math.Ceil(math.Log2(rough)-1e-9))
	}
	p := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*p >= rough*(1-1e-9) {
			return m * p
		}
	}
	return 10 * p
}
