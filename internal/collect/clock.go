package collect

import (
	"strconv"
	"time"
)

// A time that a line carries is believed where it is at most an hour before and a
// minute after the one at which the engine got the line; what others send may
// have waited with them for a week. Beyond that, and where it only says the same
// more coarsely, the engine's stands.
const (
	believeBefore = time.Hour
	believeLate   = 7 * 24 * time.Hour
	believeAfter  = time.Minute
)

// believed returns the time of an entry: own, which is exact to res, or seen.
func believed(own, res, seen int64, before time.Duration) int64 {
	if own > seen+int64(believeAfter) || own < seen-int64(before) || own <= seen && seen < own+res {
		return seen
	}
	return own
}

// clock reads times; it remembers the last second, which most lines share.
type clock struct {
	zone   *time.Location // of times that do not say theirs; nil: UTC
	second [19]byte
	unix   int64
	zoned  bool // second was read in zone
}

// engine reads a time of the engine's: RFC 3339 with as many digits as it likes.
func (c *clock) engine(b []byte) (int64, bool) {
	ns, _, n := c.iso(b)
	return ns, n > 0 && n == len(b)
}

// read reads a time in one of the usual ways. res is what it is exact to.
func (c *clock) read(s string) (ns, res int64, ok bool) {
	if len(s) < 9 || len(s) > 64 {
		return 0, 0, false
	}
	b := []byte(s)
	if ns, res, n := c.iso(b); n == len(b) {
		return ns, res, true
	}
	if s[0] >= '0' && s[0] <= '9' {
		if ns, res, ok = epoch(s); ok {
			return ns, res, true
		}
	}
	zone := c.zone
	if zone == nil {
		zone = time.UTC
	}
	for _, layout := range []string{
		"02/Jan/2006:15:04:05 -0700", "2006/01/02 15:04:05.999999999", time.RFC1123, time.RFC1123Z, time.ANSIC,
		"02 Jan 2006 15:04:05.999999999", "Jan _2 15:04:05.999999999 2006",
	} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t.UnixNano(), exact(s), true
		}
	}
	return 0, 0, false
}

// exact is a second, or less where s ends with a fraction.
func exact(s string) int64 {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '.' {
			return tenths(len(s) - 1 - i)
		}
		if s[i] < '0' || s[i] > '9' {
			break
		}
	}
	return int64(time.Second)
}

// tenths is how long the last of n digits behind the point is.
func tenths(n int) int64 {
	res := int64(time.Second)
	for range min(n, 9) {
		res /= 10
	}
	return res
}

// epoch reads seconds, milli-, micro- or nanoseconds since 1970, by their size.
func epoch(s string) (ns, res int64, ok bool) {
	whole, digits := s, 0
	for i := range len(s) {
		if s[i] == '.' {
			whole, digits = s[:i], len(s)-1-i
			break
		}
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 1e8 {
		return 0, 0, false
	}
	unit := int64(time.Nanosecond)
	switch {
	case n < 1e11:
		unit = int64(time.Second)
	case n < 1e14:
		unit = int64(time.Millisecond)
	case n < 1e17:
		unit = int64(time.Microsecond)
	}
	ns, res = n*unit, unit
	if digits > 0 {
		f, err := strconv.ParseFloat("0."+s[len(whole)+1:], 64)
		if err != nil {
			return 0, 0, false
		}
		ns += int64(f * float64(unit))
		for range min(digits, 9) {
			res = max(res/10, 1)
		}
	}
	return ns, res, true
}

// iso reads 2026-11-22T01:00:00, with a space for the T, a fraction behind a point
// or comma, and Z, +01:00, +0100 or nothing as its zone. n is how many bytes
// it took; 0: none is there.
func (c *clock) iso(b []byte) (ns, res int64, n int) {
	if len(b) < 19 || b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' || b[10] != 'T' && b[10] != ' ' {
		return 0, 0, 0
	}
	var frac int64
	res = int64(time.Second)
	n = 19
	if n+1 < len(b) && (b[n] == '.' || b[n] == ',') && digit(b[n+1]) {
		for n++; n < len(b) && digit(b[n]); n++ {
			if res > 1 {
				res /= 10
				frac += int64(b[n]-'0') * res
			}
		}
	}
	zoned, offset := true, int64(0)
	switch {
	case n < len(b) && (b[n] == 'Z' || b[n] == 'z'):
		n++
	case n+5 <= len(b) && (b[n] == '+' || b[n] == '-') && digit(b[n+1]) && digit(b[n+2]):
		m := n + 3
		if b[m] == ':' {
			m++
		}
		if m+2 > len(b) || !digit(b[m]) || !digit(b[m+1]) {
			return 0, 0, 0
		}
		offset = int64(two(b[n+1:]))*3600 + int64(two(b[m:]))*60
		if b[n] == '-' {
			offset = -offset
		}
		n = m + 2
	default:
		zoned = false
	}
	local := !zoned && c.zone != nil && c.zone != time.UTC
	if [19]byte(b[:19]) != c.second || local != c.zoned {
		for _, i := range [...]int{0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18} {
			if !digit(b[i]) {
				return 0, 0, 0
			}
		}
		year, month, day := two(b)*100+two(b[2:]), two(b[5:]), two(b[8:])
		hour, minute, second := two(b[11:]), two(b[14:]), two(b[17:])
		if month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60 || year < 1971 || year > 2261 {
			return 0, 0, 0
		}
		zone := time.UTC
		if local {
			zone = c.zone
		}
		c.unix = time.Date(year, time.Month(month), day, hour, minute, second, 0, zone).Unix()
		copy(c.second[:], b)
		c.zoned = local
	}
	return (c.unix-offset)*int64(time.Second) + frac, res, n
}

func digit(c byte) bool  { return c >= '0' && c <= '9' }
func two(b []byte) int   { return int(b[0]-'0')*10 + int(b[1]-'0') }
func letter(c byte) bool { return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' }
