package registry

import (
	"bufio"
	"errors"
	"io"
	"strings"

	"golang.org/x/crypto/bcrypt"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// ReadHtpasswd reads names and bcrypt hashes of an htpasswd file. Invalid: with every line
// that cannot be taken, by its number; a hash is in no error.
func ReadHtpasswd(r io.Reader) ([]store.Account, error) {
	var out []store.Account
	var wrong []error
	seen := map[string]int{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		bad := func(format string, words ...any) {
			wrong = append(wrong, tender.Errorf(tender.Invalid, "line %d: "+format, append([]any{n}, words...)...))
		}
		name, hash, ok := strings.Cut(line, ":")
		hash, _, _ = strings.Cut(hash, ":") // what comes after is a comment to Apache
		if !ok {
			bad("not NAME:HASH")
			continue
		}
		if err := CheckAccount(store.Account{Name: name}); err != nil {
			bad("%w", err)
			continue
		}
		if before := seen[name]; before > 0 {
			bad("%s stands on line %d already", name, before)
			continue
		}
		seen[name] = n
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case err != nil || len(hash) != 60:
			bad("the password of %s is kept as %s, not as bcrypt: htpasswd -B FILE %s sets it anew", name, hashKind(hash), name)
		case cost > bcryptMaxCost:
			bad("the bcrypt cost %d of %s is more than %d, and each login would take seconds: htpasswd -B -C 10 FILE %s sets it anew", cost, name, bcryptMaxCost, name)
		default:
			out = append(out, store.Account{Name: name, Hash: hash})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, tender.Errorf(tender.Invalid, "read the htpasswd file: %w", err)
	}
	if len(wrong) > 0 {
		return nil, tender.Errorf(tender.Invalid, "nothing was taken: %w", errors.Join(wrong...))
	}
	if len(out) == 0 {
		return nil, tender.Errorf(tender.Invalid, "there is no user in it").Hint("htpasswd -B -c FILE NAME makes one")
	}
	return out, nil
}

// hashKind names what htpasswd writes.
func hashKind(hash string) string {
	switch {
	case strings.HasPrefix(hash, "$apr1$"):
		return "apr1 (MD5)"
	case strings.HasPrefix(hash, "{SHA}"):
		return "SHA-1"
	case strings.HasPrefix(hash, "$5$"), strings.HasPrefix(hash, "$6$"):
		return "crypt (SHA-2)"
	case strings.HasPrefix(hash, "$2"):
		return "something like bcrypt that is not whole"
	case len(hash) == 13:
		return "crypt (DES)"
	}
	return "plain text or something unknown"
}
