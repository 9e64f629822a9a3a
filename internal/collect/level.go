package collect

// The levels, as Loki calls them.
const (
	levelTrace    = "trace"
	levelDebug    = "debug"
	levelInfo     = "info"
	levelWarn     = "warn"
	levelError    = "error"
	levelCritical = "critical"
	levelFatal    = "fatal"
)

// levelOf gives the words and numbers of many loggers one name; "": it is none.
func levelOf(s string) string {
	if len(s) == 0 || len(s) > 13 {
		return ""
	}
	if digit(s[0]) {
		return numbered(s)
	}
	var low [13]byte
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		low[i] = c
	}
	switch string(low[:len(s)]) {
	case "info", "information", "informational", "notice", "i", "inf", "log", "success":
		return levelInfo
	case "error", "err", "e", "eror", "severe", "failure":
		return levelError
	case "warn", "warning", "w", "wrn":
		return levelWarn
	case "debug", "d", "dbg", "debug2", "debug3", "fine":
		return levelDebug
	case "fatal", "f", "ftl", "panic", "dpanic", "emerg", "emergency", "alert":
		return levelFatal
	case "critical", "crit", "c":
		return levelCritical
	case "trace", "trc", "t", "verbose", "v", "finer", "finest", "silly":
		return levelTrace
	}
	return ""
}

// numbered reads the numbers of syslog (0 to 7), of bunyan and pino (10 to 60).
func numbered(s string) string {
	n := 0
	for i := range len(s) {
		if !digit(s[i]) || i > 2 {
			return ""
		}
		n = n*10 + int(s[i]-'0')
	}
	switch {
	case n <= 1:
		return levelFatal
	case n == 2:
		return levelCritical
	case n == 3:
		return levelError
	case n == 4:
		return levelWarn
	case n <= 6:
		return levelInfo
	case n == 7:
		return levelDebug
	case n < 10 || n > 69:
		return ""
	}
	return [...]string{levelTrace, levelDebug, levelInfo, levelWarn, levelError, levelFatal}[n/10-1]
}

// levelIn finds a level near the beginning of a line without structure: a word in
// capitals (ERROR, [WARN], INFO:), one in brackets or before a colon ([error],
// warning:), or klog's I1129.
func levelIn(text string) string {
	if len(text) > 100 {
		text = text[:100]
	}
	if len(text) > 5 && digit(text[1]) && digit(text[2]) && digit(text[3]) && digit(text[4]) && text[5] == ' ' {
		switch text[0] {
		case 'I', 'W', 'E', 'F':
			return levelOf(text[:1])
		}
	}
	words := 0
	for i := 0; i < len(text); {
		if !letter(text[i]) {
			i++
			continue
		}
		from, capitals := i, true
		for i < len(text) && (letter(text[i]) || digit(text[i])) {
			capitals = capitals && text[i] < 'a'
			i++
		}
		if words++; words > 8 {
			return ""
		}
		if i-from < 3 || i-from > 9 {
			continue
		}
		marked := from > 0 && text[from-1] == '[' && i < len(text) && (text[i] == ']' || text[i] == ' ') || i < len(text) && text[i] == ':' && words < 4
		if !capitals && !marked || from > 0 && (text[from-1] == '.' || text[from-1] == '_' || text[from-1] == '/') {
			continue
		}
		switch l := levelOf(text[from:i]); {
		case l == "":
		case text[from:i] == "LOG" || !capitals && (text[from:i] == "log" || text[from:i] == "success" || text[from:i] == "failure"):
			return levelInfo
		default:
			return l
		}
	}
	return ""
}
