package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenderhq/tender/internal/logs"
)

// wire speaks one protocol. It is used by one goroutine.
type wire interface {
	// encode appends r to dst as it travels inside of a request.
	encode(dst []byte, r *row) []byte
	// send hands items over, in order. id names the batch that they are of: it is the
	// same when they are sent again. An error says that nothing is known to be taken.
	send(ctx context.Context, id string, items []item) (verdict, error)
	// text is what of an item a person wants to see.
	text(body []byte) string
	close()
}

// row is one entry on its way out. It is good until encode returns.
type row struct {
	*stream
	time   int64 // nanoseconds since 1970 UTC
	text   []byte
	fields []logs.Field
	place  string // in the store; with the rest of the row it tells it from all others
}

// stream is what the rows of a chunk have in common.
type stream struct {
	labels logs.Labels
	key    string
}

// item is an encoded row.
type item struct {
	stream *stream
	time   int64
	body   []byte
}

// verdict says what became of items that the other side has looked at. Those that
// are not named were taken.
type verdict struct {
	refused []refusal     // will never be taken
	again   []int         // are to be sent again, ascending
	reason  string        // why again
	after   time.Duration // how long the other side wants to be left alone; 0: it did not say
	unnamed int64         // were refused without being named, for reason
}

type refusal struct {
	index  int
	reason string
}

// refusedError: the request as a whole is refused for what is in it. A smaller one
// may be taken.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// busyError: the other side asks for patience.
type busyError struct {
	reason string
	after  time.Duration
}

func (e *busyError) Error() string { return e.reason }

// refused and busy make these errors.
func refused(format string, args ...any) error {
	return &refusedError{fmt.Sprintf(format, args...)}
}

func pause(err error) time.Duration {
	if b, ok := errors.AsType[*busyError](err); ok {
		return b.after
	}
	return 0
}

// field returns the value of the first of the fields called name.
func (r *row) field(name string) string {
	for _, f := range r.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}
