package convert

import (
	"strings"

	tender "github.com/tenderhq/tender"
)

// shellWords splits one command as a shell would, in Compose's own way of
// writing: variables become ${NAME}, which Compose fills in, and a dollar that
// the shell would leave alone becomes $$.
func shellWords(text string) ([]string, error) {
	s := shell{rest: text}
	for s.rest != "" {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	s.end()
	return s.words, nil
}

type shell struct {
	rest  string
	word  strings.Builder
	open  bool // a word has begun, were it empty
	words []string
}

func (s *shell) end() {
	if s.open {
		s.words = append(s.words, s.word.String())
		s.word.Reset()
		s.open = false
	}
}

func (s *shell) take(n int) string {
	out := s.rest[:n]
	s.rest = s.rest[n:]
	return out
}

func (s *shell) put(text string) {
	s.open = true
	s.word.WriteString(text)
}

// next reads one piece outside of quotes.
func (s *shell) next() error {
	switch c := s.rest[0]; {
	case strings.HasPrefix(s.rest, "\\\n"), strings.HasPrefix(s.rest, "\\\r\n"):
		s.take(strings.IndexByte(s.rest, '\n') + 1)
	case c == '\n' && strings.TrimSpace(s.rest) != "" && (s.open || len(s.words) > 0) && !strings.HasPrefix(strings.TrimSpace(s.rest), "#"):
		return tender.Errorf(tender.Invalid, "a second command follows: %q", firstLine(strings.TrimSpace(s.rest))).
			Hint("give one docker run; a line that goes on ends with a backslash")
	case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		s.take(1)
		s.end()
	case c == '#' && !s.open:
		s.take(len(firstLine(s.rest)))
	case c == '\'':
		end := strings.IndexByte(s.rest[1:], '\'')
		if end < 0 {
			return tender.Errorf(tender.Invalid, "a ' is never closed")
		}
		s.put(dollars(s.take(end + 2)[1 : end+1]))
	case c == '"':
		s.take(1)
		s.open = true
		return s.quoted()
	case c == '\\':
		if len(s.rest) == 1 {
			return tender.Errorf(tender.Invalid, "the command ends in a backslash").Hint("leave it out, or give the lines that follow, too")
		}
		s.put(dollars(s.take(2)[1:]))
	case c == '$' || c == '`':
		return s.expand()
	case strings.ContainsRune("|&;<>()", rune(c)):
		return tender.Errorf(tender.Invalid, "%q is the shell's and no part of docker run", string(c)).Hint("give the docker run alone, or quote it")
	default:
		s.put(s.take(1))
	}
	return nil
}

// quoted reads up to the closing double quote.
func (s *shell) quoted() error {
	for s.rest != "" {
		switch c := s.rest[0]; {
		case c == '"':
			s.take(1)
			return nil
		case c == '\\' && len(s.rest) > 1 && strings.ContainsRune("\"\\`$\n", rune(s.rest[1])):
			if e := s.take(2)[1:]; e != "\n" {
				s.put(dollars(e))
			}
		case c == '$' || c == '`':
			if err := s.expand(); err != nil {
				return err
			}
		default:
			s.put(s.take(1))
		}
	}
	return tender.Errorf(tender.Invalid, `a " is never closed`)
}

// expand reads what begins with a dollar or a backtick.
func (s *shell) expand() error {
	refuse := func(what string) error {
		return tender.Errorf(tender.Invalid, "%s is filled in by a shell, and no shell reads a Compose file", what).
			Hint("put its result into a variable and write ${NAME}")
	}
	if s.rest[0] == '`' {
		end := strings.IndexByte(s.rest[1:], '`')
		if end >= 0 && strings.TrimSpace(s.rest[1:end+1]) == "pwd" {
			s.take(end + 2)
			s.put("${PWD}")
			return nil
		}
		return refuse(firstLine(s.rest))
	}
	after := s.rest[1:]
	name := len(after) - len(strings.TrimLeft(after, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"))
	switch {
	case strings.HasPrefix(after, "(pwd)"):
		s.take(6)
		s.put("${PWD}")
	case strings.HasPrefix(after, "("):
		end := strings.IndexByte(after, ')')
		if end < 0 {
			end = len(firstLine(after)) - 1
		}
		return refuse("$" + after[:end+1])
	case strings.HasPrefix(after, "{"):
		end := strings.IndexByte(after, '}')
		if end < 0 {
			return tender.Errorf(tender.Invalid, "a ${ is never closed")
		}
		inner := after[1:end]
		rest := strings.TrimLeft(inner, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
		// What follows the name in Compose, too: :- - :? ? :+ +
		if rest == inner || rest != "" && !strings.ContainsRune("-?+", rune(strings.TrimPrefix(rest, ":")[0])) {
			return refuse("${" + inner + "}")
		}
		s.put(s.take(end + 2))
	case name > 0 && (after[0] < '0' || after[0] > '9'):
		s.put("${" + s.take(1 + name)[1:] + "}")
	case after != "" && strings.ContainsRune("0123456789@*#?!$-", rune(after[0])):
		return refuse("$" + after[:1])
	default:
		s.take(1)
		s.put("$$")
	}
	return nil
}

// dollars escapes what Compose must not fill in.
func dollars(s string) string { return strings.ReplaceAll(s, "$", "$$") }

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
