package compose

import "flag"

var updateDocs = flag.Bool("docs", false, "write the table of fields into docs/compose.md")

// NewMemo is a memo of texts of at most so many bytes.
func NewMemo(most int) func(text []byte, make func() (string, error)) (string, error) {
	return (&memo[string]{most: most}).of
}
