package collect

import (
	"strings"
	"time"
)

// trace is what kind of stack trace an entry is in the middle of: which further
// lines belong to it depends on it.
type trace uint8

const (
	noTrace trace = iota
	frames        // Java, .NET and the frames of JavaScript
	python
	pythonEnd // the line that names the exception has been seen
	pyLogging // Python's logging telling of an error of its own
	pyLoggingEnd
	golang
	node
)

const (
	maxTraceLines = 512
	// together is how far apart two lines may be that one write brought.
	together = 50 * time.Millisecond
)

// begins returns the trace that a first line opens.
func begins(text string) trace {
	if text == "" {
		return noTrace
	}
	switch text[0] {
	case 'T':
		if strings.HasPrefix(text, "Traceback (most recent call last)") {
			return python
		}
	case ' ':
		if strings.HasPrefix(text, "  + Exception Group Traceback") {
			return python
		}
	case '-':
		if text == "--- Logging error ---" {
			return pyLogging
		}
	case 'p', 'f', 'g':
		if strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ") || goroutine(text) {
			return golang
		}
		if strings.HasPrefix(text, "file://") && scriptLine(text) {
			return node
		}
	case '/', 'n':
		if scriptLine(text) {
			return node
		}
	case 'E':
		if strings.HasPrefix(text, `Exception in thread "`) {
			return frames
		}
	}
	if exceptionLine(text) {
		return frames
	}
	return noTrace
}

// scriptLine is /app/index.js:12, with which Node begins.
func scriptLine(text string) bool {
	at := strings.LastIndexByte(text, ':')
	if at < 4 || at+1 == len(text) || !digit(text[at+1]) {
		return false
	}
	file := text[:at]
	return strings.HasSuffix(file, "js") || strings.HasSuffix(file, ".ts") || strings.HasPrefix(file, "node:")
}

func goroutine(text string) bool {
	rest, ok := strings.CutPrefix(text, "goroutine ")
	return ok && rest != "" && digit(rest[0]) && strings.HasSuffix(text, "]:")
}

// exceptionLine is com.example.SomeException: with or without a message.
func exceptionLine(text string) bool {
	if !letter(text[0]) {
		return false
	}
	dots, i := 0, 0
	for i < len(text) && (letter(text[i]) || digit(text[i]) || text[i] == '.' || text[i] == '_' || text[i] == '$') {
		if text[i] == '.' {
			dots++
		}
		i++
	}
	name := text[:i]
	return dots > 0 && (i == len(text) || text[i] == ':') &&
		(strings.HasSuffix(name, "Exception") || strings.HasSuffix(name, "Error") || strings.HasSuffix(name, "Throwable"))
}

// frameLine is a line that never stands alone: "	at …", "Caused by: …", "... 12 more".
func frameLine(text string) bool {
	if text[0] != ' ' && text[0] != '\t' {
		return strings.HasPrefix(text, "Caused by: ")
	}
	rest := strings.TrimLeft(text, " \t")
	return strings.HasPrefix(rest, "at ") || strings.HasPrefix(rest, "Suppressed: ") || strings.HasPrefix(rest, "Caused by: ") ||
		strings.HasPrefix(rest, "... ") && (strings.HasSuffix(rest, " more") || strings.HasSuffix(rest, " omitted"))
}

// continues reports whether text belongs to the entry before it, and which trace
// that is in then. apart is how much later the engine got it.
func (t trace) continues(text string, apart time.Duration) (trace, bool) {
	empty := text == ""
	indented := !empty && (text[0] == ' ' || text[0] == '\t')
	switch t {
	case python:
		switch {
		case empty || indented:
			return python, true
		case strings.HasPrefix(text, "Traceback (most"):
			return python, true
		}
		return pythonEnd, true
	case pythonEnd:
		switch {
		case empty || indented, strings.HasPrefix(text, "During handling of the above"), strings.HasPrefix(text, "The above exception was"):
			return pythonEnd, true
		case strings.HasPrefix(text, "Traceback (most"):
			return python, true
		}
		return t, false
	case pyLogging:
		if strings.HasPrefix(text, "Arguments: ") {
			return pyLoggingEnd, true
		}
		return t, true
	case pyLoggingEnd:
		return t, false
	case golang:
		if empty || indented {
			return t, true
		}
		last := text[len(text)-1]
		return t, goroutine(text) || last == ')' && strings.IndexByte(text, '(') > 0 || strings.HasPrefix(text, "created by ") ||
			strings.HasPrefix(text, "[signal ") || strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "exit status ") ||
			strings.HasPrefix(text, "[originating from ") || strings.HasPrefix(text, "runtime: ") || strings.HasPrefix(text, "...")
	case node:
		if empty || indented || text == "}" || text[0] == '^' || strings.HasPrefix(text, "Node.js v") || strings.HasPrefix(text, "Thrown at:") {
			return t, true
		}
		name, _, ok := strings.Cut(text, ":")
		return t, ok && (strings.HasSuffix(name, "Error") || strings.HasSuffix(name, "Exception") || strings.HasPrefix(name, "Error [")) ||
			strings.HasPrefix(text, "throw ") || strings.HasPrefix(text, "const ") || strings.HasPrefix(text, "return ") || strings.HasPrefix(text, "[")
	case frames:
		if empty {
			return t, false
		}
		return t, indented || text == "}" || frameLine(text) || apart < together && exceptionLine(text)
	}
	if empty {
		return t, false
	}
	if frameLine(text) {
		return frames, true
	}
	if apart < together && apart >= 0 {
		switch text[0] {
		case 'T':
			return python, strings.HasPrefix(text, "Traceback (most recent call last)")
		case 'g':
			if goroutine(text) {
				return golang, true
			}
		}
		if exceptionLine(text) {
			return frames, true
		}
	}
	return t, false
}
