package collect

import (
	"strconv"
	"strings"
)

// pair is a cut-out of a text: text[from:to] is the value of name; decoded is what
// it means where that is something else.
type pair struct {
	name     string
	from, to int
	decoded  string
	escaped  bool
}

// readLogfmt takes key=value pairs apart. ok: the whole text is made of such, at
// least two of them.
func readLogfmt(text string, into []pair, name func(string) string) (pairs []pair, ok bool) {
	i, n := 0, len(text)
	for {
		for i < n && text[i] == ' ' {
			i++
		}
		if i >= n {
			return into, len(into) >= 2
		}
		from := i
		for i < n && keyByte(text[i]) {
			i++
		}
		if i == from || i >= n || text[i] != '=' || len(into) >= maxFields {
			return into, false
		}
		p := pair{name: name(text[from:i])}
		i++
		if i < n && text[i] == '"' {
			i++
			p.from = i
			for i < n && text[i] != '"' {
				if text[i] == '\\' {
					p.escaped = true
					i++
				}
				i++
			}
			if i >= n {
				return into, false
			}
			p.to = i
			if p.escaped {
				var err error
				if p.decoded, err = strconv.Unquote(text[p.from-1 : i+1]); err != nil {
					p.decoded = text[p.from:i]
				}
			}
			if i++; i < n && text[i] != ' ' {
				return into, false
			}
		} else {
			p.from = i
			for i < n && text[i] != ' ' && text[i] != '"' && text[i] != '=' {
				i++
			}
			if i < n && text[i] != ' ' {
				return into, false
			}
			p.to = i
		}
		into = append(into, p)
	}
}

func keyByte(c byte) bool {
	return letter(c) || digit(c) || c == '_' || c == '.' || c == '-' || c == '@' || c == '/'
}

// telling are keys that only a log line has.
func telling(pairs []pair) bool {
	for _, p := range pairs {
		switch p.name {
		case "level", "lvl", "msg", "message", "ts", "time", "severity":
			return true
		}
	}
	return false
}

// readAccess takes a line of the common or combined format apart, as nginx,
// Apache and their kin write it.
func readAccess(text string, into []pair) (pairs []pair, ok bool) {
	i := 0
	word := func(name string) bool {
		from := i
		for i < len(text) && text[i] != ' ' {
			i++
		}
		if i == from || i >= len(text) {
			return false
		}
		if text[from:i] != "-" {
			into = append(into, pair{name: name, from: from, to: i})
		}
		i++
		return true
	}
	quoted := func(name string) bool {
		if i >= len(text) || text[i] != '"' {
			return false
		}
		i++
		from := i
		for i < len(text) && text[i] != '"' {
			if text[i] == '\\' {
				i++
			}
			i++
		}
		if i >= len(text) {
			return false
		}
		if name != "" && text[from:i] != "-" {
			into = append(into, pair{name: name, from: from, to: i})
		}
		i++
		return true
	}
	if !word("client") || !word("ident") || !word("user") || i >= len(text) || text[i] != '[' {
		return into, false
	}
	end := strings.IndexByte(text[i:], ']')
	if end < 0 || end > 40 || i+end+2 >= len(text) || text[i+end+1] != ' ' {
		return into, false
	}
	into = append(into, pair{name: "time", from: i + 1, to: i + end})
	i += end + 2
	request := i + 1
	if !quoted("") {
		return into, false
	}
	if end := i - 1; end > request && text[request:end] != "-" {
		method := strings.IndexByte(text[request:end], ' ')
		last := strings.LastIndexByte(text[request:end], ' ')
		if method > 0 && last > method {
			into = append(into, pair{name: "method", from: request, to: request + method},
				pair{name: "path", from: request + method + 1, to: request + last}, pair{name: "protocol", from: request + last + 1, to: end})
		} else {
			into = append(into, pair{name: "request", from: request, to: end})
		}
	}
	if i >= len(text) || text[i] != ' ' || i+4 > len(text) || !digit(text[i+1]) || !digit(text[i+2]) || !digit(text[i+3]) {
		return into, false
	}
	into = append(into, pair{name: "status", from: i + 1, to: i + 4})
	if i += 4; i >= len(text) {
		return into, true
	}
	i++
	from := i
	for i < len(text) && text[i] != ' ' {
		if !digit(text[i]) && text[i] != '-' {
			return into, false
		}
		i++
	}
	if i > from && text[from:i] != "-" {
		into = append(into, pair{name: "size", from: from, to: i})
	}
	if i+1 < len(text) && text[i+1] == '"' {
		i++
		if !quoted("referer") {
			return into, false
		}
		if i+1 < len(text) && text[i] == ' ' && text[i+1] == '"' {
			i++
			if !quoted("agent") {
				return into, false
			}
		}
	}
	if i < len(text) {
		if text[i] != ' ' {
			return into, false
		}
		into = append(into, pair{name: "more", from: i + 1, to: len(text)})
	}
	return into, true
}
