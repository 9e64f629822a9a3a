package logs

import "time"

// clock is a layout of times that a column is written in: 2026-11-29T22:29:27.123Z
// with any number of decimals up to nine, or what Python's logging writes.
type clock struct {
	sep      byte // between day and time: 'T' or ' '
	point    byte // before the decimals: '.' or ','
	decimals int  // 0: no point either
	zone     byte // 0: nothing, 1: Z, 2: +00:00
}

var zones = [...]string{"", "Z", "+00:00"}

// clockOf finds the layout of s.
func clockOf(s []byte) (c clock, ok bool) {
	if len(s) < 19 || len(s) > 35 {
		return c, false
	}
	c.sep = s[10]
	rest := s[19:]
	if len(rest) > 0 && (rest[0] == '.' || rest[0] == ',') {
		c.point = rest[0]
		for rest = rest[1:]; len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9'; rest = rest[1:] {
			c.decimals++
		}
		if c.decimals == 0 {
			return c, false
		}
	}
	for i, z := range zones {
		if string(rest) == z {
			c.zone = byte(i)
			return c, c.valid()
		}
	}
	return c, false
}

func (c clock) valid() bool {
	return (c.sep == 'T' || c.sep == ' ') && c.decimals <= 9 && int(c.zone) < len(zones) &&
		(c.decimals == 0 && c.point == 0 || c.decimals > 0 && (c.point == '.' || c.point == ','))
}

func (c clock) size() int {
	n := 19 + len(zones[c.zone])
	if c.decimals > 0 {
		n += 1 + c.decimals
	}
	return n
}

// two reads two digits; what are none makes bad 1.
func two(s []byte, bad *byte) int {
	a, b := s[0]-'0', s[1]-'0'
	if a > 9 || b > 9 {
		*bad = 1
	}
	return int(a)*10 + int(b)
}

// day is the last date that was turned into a number: the next is mostly the same.
type day struct {
	text  [10]byte
	start int64 // nanoseconds since 1970
}

// parse reads s in the layout c; ok only if append writes s again.
func (c clock) parse(s []byte, d *day) (ns int64, ok bool) {
	if len(s) != c.size() || s[10] != c.sep || s[13] != ':' || s[16] != ':' {
		return 0, false
	}
	bad := byte(0)
	if string(d.text[:]) != string(s[:10]) {
		y, m, dd := two(s, &bad)*100+two(s[2:], &bad), two(s[5:], &bad), two(s[8:], &bad)
		if bad != 0 || s[4] != '-' || s[7] != '-' || y < 1971 || y > 2150 {
			return 0, false
		}
		t := time.Date(y, time.Month(m), dd, 0, 0, 0, 0, time.UTC)
		if t.Month() != time.Month(m) || t.Day() != dd {
			return 0, false
		}
		copy(d.text[:], s)
		d.start = t.UnixNano()
	}
	h, m, sec := two(s[11:], &bad), two(s[14:], &bad), two(s[17:], &bad)
	if bad != 0 || h > 23 || m > 59 || sec > 59 {
		return 0, false
	}
	ns = int64(h*3600+m*60+sec) * 1e9
	if c.decimals > 0 {
		if s[19] != c.point {
			return 0, false
		}
		part, unit := int64(0), int64(1e9)
		for _, b := range s[20 : 20+c.decimals] {
			if b -= '0'; b > 9 {
				return 0, false
			}
			unit /= 10
			part = part*10 + int64(b)
		}
		ns += part * unit
	}
	if string(s[c.size()-len(zones[c.zone]):]) != zones[c.zone] {
		return 0, false
	}
	return d.start + ns, true
}

// append writes ns, which is not before 1970.
func (c clock) append(dst []byte, ns int64) []byte {
	const perDay = 24 * int64(time.Hour)
	y, mo, d := dateOf(ns / perDay)
	part := ns % perDay
	sec := int(part / 1e9)
	h, m, s := sec/3600, sec/60%60, sec%60
	dst = append(dst, byte('0'+y/1000%10), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10), '-',
		byte('0'+mo/10), byte('0'+mo%10), '-', byte('0'+d/10), byte('0'+d%10), c.sep,
		byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+s/10), byte('0'+s%10))
	if c.decimals > 0 {
		dst = append(dst, c.point)
		rest, unit := int(part%1e9), int(1e8)
		for range c.decimals {
			dst = append(dst, byte('0'+rest/unit%10))
			unit /= 10
		}
	}
	return append(dst, zones[c.zone]...)
}

// dateOf turns days since 1970 into a date: days_from_civil backwards, by Howard
// Hinnant (http://howardhinnant.github.io/date_algorithms.html).
func dateOf(days int64) (y, m, d int) {
	z := days + 719468
	era := z / 146097
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = int(doy - (153*mp+2)/5 + 1)
	m = int(mp + 3)
	y = int(yoe + era*400)
	if mp >= 10 {
		m -= 12
		y++
	}
	return y, m, d
}

// asTimes reads a formText column as times of one layout.
func asTimes(dst []uint64, c *column) ([]uint64, clock, bool) {
	layout, ok := clockOf(c.text(0))
	if !ok {
		return dst, layout, false
	}
	var d day
	from := uint32(0)
	for _, end := range c.ends {
		ns, ok := layout.parse(c.data[from:end], &d)
		if !ok {
			return dst, layout, false
		}
		dst = append(dst, uint64(ns))
		from = end
	}
	return dst, layout, true
}
