package tender

import (
	"errors"
	"fmt"
)

// Kind is one of six kinds of error. It becomes an HTTP status once, in api,
// and an exit code once, in cli.
type Kind string

const (
	Invalid     Kind = "invalid"
	NotFound    Kind = "not found"
	Conflict    Kind = "conflict"
	Denied      Kind = "denied"
	Unavailable Kind = "unavailable"
	Internal    Kind = "internal"
)

// Error is an error with a kind, and with what to do about it.
type Error struct {
	Kind Kind
	Msg  string
	// Advice is what to type or change next; it is printed on a line of its own.
	Advice string
	err    error
}

// Errorf makes an error of a kind; %w wraps as in fmt.Errorf.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Msg: err.Error(), err: errors.Unwrap(err)}
}

// Hint adds what to do next and returns e.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Advice = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) Error() string { return e.Msg }
func (e *Error) Unwrap() error { return e.err }

// KindOf returns the kind of the first Error in err's chain, else Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// AdviceOf returns the advice of the first Error in err's chain that has some.
func AdviceOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Advice != "" {
			return e.Advice
		}
		err = e.err
	}
	return ""
}
