package collect

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// grokPatterns are the usual names, in the syntax of RE2. docs/collecting.md lists them.
var grokPatterns = map[string]string{
	"WORD":         `\b\w+\b`,
	"NOTSPACE":     `\S+`,
	"SPACE":        `\s*`,
	"DATA":         `.*?`,
	"GREEDYDATA":   `.*`,
	"QUOTEDSTRING": `"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`,
	"QS":           `%{QUOTEDSTRING}`,
	"UUID":         `[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}`,

	"INT":        `[+-]?[0-9]+`,
	"POSINT":     `\b[1-9][0-9]*\b`,
	"NONNEGINT":  `\b[0-9]+\b`,
	"NUMBER":     `[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?`,
	"BASE10NUM":  `%{NUMBER}`,
	"BASE16NUM":  `[+-]?(?:0x)?[0-9A-Fa-f]+`,
	"USERNAME":   `[\w.-]+`,
	"USER":       `%{USERNAME}`,
	"EMAIL":      `[\w.+%-]+@%{HOSTNAME}`,
	"HTTPDUSER":  `%{EMAIL}|%{USER}`,
	"PROG":       `[\x21-\x5a\x5c\x5e-\x7e]+`,
	"SYSLOGPROG": `%{PROG:program}(?:\[%{POSINT:pid}\])?`,

	"IPV4":     `(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])`,
	"IPV6":     `[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:%\w+)?`,
	"IP":       `%{IPV6}|%{IPV4}`,
	"HOSTNAME": `\b[0-9A-Za-z][0-9A-Za-z-]{0,62}(?:\.[0-9A-Za-z][0-9A-Za-z-]{0,62})*\.?`,
	"IPORHOST": `%{IP}|%{HOSTNAME}`,
	"HOSTPORT": `(?:%{IPORHOST}):%{POSINT}`,
	"MAC":      `(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}`,

	"UNIXPATH":     `(?:/[^\s/]*)+`,
	"WINPATH":      `(?:[A-Za-z]:|\\)(?:\\[^\\?*\s]*)+`,
	"PATH":         `%{UNIXPATH}|%{WINPATH}`,
	"URIPROTO":     `[A-Za-z][A-Za-z0-9+.-]+`,
	"URIHOST":      `(?:%{IPORHOST})(?::%{POSINT})?`,
	"URIPATH":      `(?:/[^\s?#]*)+`,
	"URIPARAM":     `\?[^\s#]*`,
	"URIPATHPARAM": `%{URIPATH}(?:%{URIPARAM})?`,
	"URI":          `%{URIPROTO}://(?:%{USER}(?::[^@\s]*)?@)?(?:%{URIHOST})?(?:%{URIPATHPARAM})?`,

	"MONTH":             `\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b`,
	"MONTHNUM":          `0?[1-9]|1[0-2]`,
	"MONTHDAY":          `0[1-9]|[12][0-9]|3[01]|[1-9]`,
	"DAY":               `\b(?:Mon(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?)\b`,
	"YEAR":              `[0-9]{2}(?:[0-9]{2})?`,
	"HOUR":              `2[0-3]|[01]?[0-9]`,
	"MINUTE":            `[0-5][0-9]`,
	"SECOND":            `(?:[0-5]?[0-9]|60)(?:[:.,][0-9]+)?`,
	"TIME":              `(?:%{HOUR}):%{MINUTE}(?::%{SECOND})?`,
	"TZ":                `[A-Z]{3,4}`,
	"ISO8601_TIMEZONE":  `Z|[+-](?:%{HOUR}):?%{MINUTE}`,
	"TIMESTAMP_ISO8601": `[0-9]{4}-(?:%{MONTHNUM})-(?:%{MONTHDAY})[T ](?:%{HOUR}):?%{MINUTE}(?::?%{SECOND})?(?:%{ISO8601_TIMEZONE})?`,
	"DATE_US":           `(?:%{MONTHNUM})[/-](?:%{MONTHDAY})[/-]%{YEAR}`,
	"DATE_EU":           `(?:%{MONTHDAY})[./-](?:%{MONTHNUM})[./-]%{YEAR}`,
	"DATE":              `%{DATE_US}|%{DATE_EU}`,
	"DATESTAMP":         `(?:%{DATE})[- ]%{TIME}`,
	"HTTPDATE":          `(?:%{MONTHDAY})/%{MONTH}/%{YEAR}:%{TIME} %{INT}`,
	"SYSLOGTIMESTAMP":   `%{MONTH} +(?:%{MONTHDAY}) %{TIME}`,

	"LOGLEVEL": `(?i:trace|debug|notice|info(?:rmation)?|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|severe|emerg(?:ency)?|alert)`,

	"COMMONAPACHELOG": `%{IPORHOST:client} %{HTTPDUSER:ident} %{HTTPDUSER:user} \[%{HTTPDATE:timestamp}\] ` +
		`"(?:%{WORD:method} %{NOTSPACE:path}(?: HTTP/%{NUMBER:version})?|%{DATA:request})" %{INT:status} (?:%{INT:size}|-)`,
	"COMBINEDAPACHELOG": `%{COMMONAPACHELOG} "(?:-|%{DATA:referer})" "(?:-|%{DATA:agent})"`,
	"SYSLOGBASE":        `%{SYSLOGTIMESTAMP:timestamp} %{IPORHOST:host} %{SYSLOGPROG}:`,
	"SYSLOGLINE":        `%{SYSLOGBASE} %{GREEDYDATA:message}`,
}

var grokUse = regexp.MustCompile(`%\{(\w+)(?::([\w.@\[\]-]+))?(?::\w+)?\}`)

const maxGrok = 16 << 10 // bytes of an expanded pattern

// grok writes the patterns that are used in one out.
func grok(pattern string, depth int, named map[string]bool) (string, error) {
	if depth > 16 {
		return "", fmt.Errorf("patterns go too deep")
	}
	var bad error
	out := grokUse.ReplaceAllStringFunc(pattern, func(use string) string {
		m := grokUse.FindStringSubmatch(use)
		p, ok := grokPatterns[m[1]]
		if !ok {
			bad = fmt.Errorf("no pattern is called %s; there are %s", m[1], strings.Join(slices.Sorted(maps.Keys(grokPatterns)), " "))
			return ""
		}
		inner, err := grok(p, depth+1, named)
		if err != nil {
			bad = err
			return ""
		}
		name := groupName(m[2])
		if name == "" || named[name] {
			return "(?:" + inner + ")"
		}
		named[name] = true
		return "(?P<" + name + ">" + inner + ")"
	})
	if bad == nil && len(out) > maxGrok {
		bad = fmt.Errorf("the pattern is too long")
	}
	return out, bad
}

// groupName is a field's name as a group may be called: [user][id] and user.id are user_id.
func groupName(name string) string {
	name = strings.Trim(strings.NewReplacer("][", "_", "[", "", "]", "", ".", "_", "-", "_", "@", "").Replace(name), "_")
	if name != "" && digit(name[0]) {
		name = "_" + name
	}
	return name
}
