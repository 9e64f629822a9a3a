package compose

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"

	"github.com/compose-spec/compose-go/v2/dotenv"
)

// rawEnvFiles teaches the parser env_file's format: raw, which it leaves to its callers.
var rawEnvFiles = sync.OnceFunc(func() { dotenv.RegisterFormat("raw", rawEnv) })

// rawEnv reads KEY=VALUE as docker run --env-file does: quotes, dollar signs and
// the spaces behind are part of the value. A key alone takes its value from the
// user's environment, or is left out.
func rawEnv(r io.Reader, filename string, vars map[string]string, lookup func(string) (string, bool)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxContent)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeftFunc(strings.TrimPrefix(lines.Text(), "\ufeff"), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if key == "" || strings.ContainsFunc(key, unicode.IsSpace) {
			return fmt.Errorf("%s:%d: %q is no name of a variable", filename, n, key)
		}
		if !ok {
			if value, ok = lookup(key); !ok {
				continue
			}
		}
		vars[key] = value
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", filename, err)
	}
	return nil
}
