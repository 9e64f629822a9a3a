package registry

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

const (
	bcryptCost    = 10
	bcryptMaxCost = 14               // a comparison of more takes seconds
	bcryptReads   = 72               // bytes of a password; it does not look at more
	verifiedFor   = 5 * time.Minute  // a password that was right needs no bcrypt again
	verifiedMax   = 4096             // passwords remembered
	usedEvery     = time.Hour        // the use of an account is written this often at most
	robotPrefix   = "tender_robot_"  // lets people and secret scanners see what a string is
	tokenPrefix   = "tender_"        // of API tokens and of robots'
	accountLetter = "A-Za-z0-9._@+-" // what the names of accounts are made of
)

var accountName = form(`^[A-Za-z0-9_][` + accountLetter + `]{0,127}$`)

// AccountsOptions says where accounts lie. Store is needed.
type AccountsOptions struct {
	Store *store.Store
	// Anonymous are patterns of repositories that everybody may pull from.
	Anonymous []string
	// Tokens is asked for whoever is no account and sends an API token, and for who came
	// without an Authorization. nil: nobody else is known.
	Tokens Enter
	Now    func() time.Time // nil: time.Now
	Log    *slog.Logger     // nil: nothing is logged
}

// Accounts tells who knocks. It is safe for concurrent use.
type Accounts struct {
	o     AccountsOptions
	key   [32]byte      // of verified
	dummy func() []byte // what the passwords of nobody are compared with
	slots chan struct{} // comparisons at a time
	fails failures

	mu       sync.Mutex
	verified map[[32]byte]time.Time // until
}

// NewAccounts returns what Options.Enter needs.
func NewAccounts(o AccountsOptions) *Accounts {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Accounts{o: o, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), verified: map[[32]byte]time.Time{}}
	rand.Read(a.key[:]) //nolint:errcheck // it never fails
	// What is compared with it matters to nobody: it is never taken for right. Whoever has no
	// registry does not pay for it at each start.
	a.dummy = sync.OnceValue(func() []byte {
		hash, _ := bcrypt.GenerateFromPassword(a.key[:], bcryptCost)
		return hash
	})
	return a
}

// Enter tells accounts by Basic auth: Denied for a name or password that is not right, and
// an error that says how long to wait for who has tried too often.
func (a *Accounts) Enter(r *http.Request) (Account, error) {
	name, password, basic := r.BasicAuth()
	if !basic {
		var who Account
		if a.o.Tokens != nil {
			var err error
			if who, err = a.o.Tokens(r); err != nil {
				return Account{}, err
			}
		} else if r.Header.Get("Authorization") != "" {
			return Account{}, wrong()
		}
		return a.withAnonymous(who), nil
	}
	// Clients send it with each request: it is looked up once, and no account before it.
	if a.o.Tokens != nil && strings.HasPrefix(password, tokenPrefix) && !strings.HasPrefix(password, robotPrefix) {
		who, err := a.o.Tokens(r)
		if err == nil {
			return a.withAnonymous(who), nil
		}
		if tender.KindOf(err) != tender.Denied {
			return Account{}, err
		}
	}
	var row store.Account
	err := a.o.Store.View(r.Context(), func(tx *store.Tx) (err error) {
		row, err = tx.Account(name)
		return err
	})
	known := err == nil
	if err != nil && tender.KindOf(err) != tender.NotFound {
		return Account{}, err
	}
	if known && row.Robot && sameToken(row.Hash, password) {
		return a.enter(r.Context(), row)
	}
	ok, err := a.compare(r, row, known && !row.Robot, password)
	if err != nil {
		return Account{}, err
	}
	if !ok {
		return Account{}, wrong()
	}
	return a.enter(r.Context(), row)
}

// wrong does not say which of the two it was.
func wrong() error {
	return tender.Errorf(tender.Denied, "wrong name or password for the registry").
		Hint("docker login; tender registry user ls lists who is known, tender registry user passwd NAME sets another password")
}

func (a *Accounts) enter(ctx context.Context, row store.Account) (Account, error) {
	now := a.o.Now().UTC()
	if !row.Expires.IsZero() && !now.Before(row.Expires) {
		return Account{}, tender.Errorf(tender.Denied, "the registry's user %s has expired on %s", row.Name, row.Expires.Format(time.DateOnly)).
			Hint("tender registry user rm %s, then add it again", row.Name)
	}
	if now.Sub(row.Used) >= usedEvery {
		// Who may pull may pull from a disk that is full, too.
		if err := a.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.UseAccount(row.Name, now) }); err != nil && ctx.Err() == nil {
			a.o.Log.Warn("the use of an account is not noted", "account", row.Name, "error", err)
		}
	}
	who := Account{Name: row.Name, Admin: row.Admin}
	for _, g := range row.Grants {
		who.Grants = append(who.Grants, Grant{g.Repositories, g.Actions})
	}
	return a.withAnonymous(who), nil
}

// withAnonymous adds what everybody may do.
func (a *Accounts) withAnonymous(who Account) Account {
	for _, p := range a.o.Anonymous {
		who.Grants = append(slices.Clip(who.Grants), Grant{p, []string{Pull}})
	}
	return who
}

// compare takes as long for a name that nobody has as for a password that is wrong.
func (a *Accounts) compare(r *http.Request, row store.Account, known bool, password string) (bool, error) {
	mac := hmac.New(sha256.New, a.key[:])
	// The hash is part of it: after a change of the password the old one is not remembered.
	mac.Write([]byte(row.Name + "\x00" + row.Hash + "\x00" + password)) //nolint:errcheck // it never fails
	sum := [32]byte(mac.Sum(nil))
	if known && a.remembered(sum) {
		return true, nil
	}
	from := source(r.RemoteAddr)
	if wait := a.fails.wait(from, a.o.Now()); wait > 0 {
		return false, tooManyFailures(wait)
	}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-r.Context().Done():
		return false, r.Context().Err()
	}
	if known && a.remembered(sum) { // of a request that came at the same time
		return true, nil
	}
	if wait := a.fails.wait(from, a.o.Now()); wait > 0 { // others failed while this one waited
		return false, tooManyFailures(wait)
	}
	hash := a.dummy()
	if known {
		hash = []byte(row.Hash)
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password[:min(len(password), bcryptReads)]))
	if err != nil || !known || len(password) > bcryptReads {
		a.fails.add(from, a.o.Now())
		return false, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verified) >= verifiedMax {
		clear(a.verified)
	}
	a.verified[sum] = a.o.Now().Add(verifiedFor)
	return true, nil
}

func (a *Accounts) remembered(sum [32]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, hit := a.verified[sum]
	if hit && !a.o.Now().Before(until) {
		delete(a.verified, sum)
		return false
	}
	return hit
}

// Hash makes what is kept of a password. Invalid: it is too short or too long.
func Hash(password string) (string, error) {
	if len(password) < 8 || len(password) > bcryptReads {
		return "", tender.Errorf(tender.Invalid, "the password has %d bytes; 8 to %d are taken", len(password), bcryptReads).
			Hint("openssl rand -base64 24 makes one")
	}
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcryptCost)
	return string(h), err
}

// RobotToken makes the token of a robot, and what is kept of it.
func RobotToken() (token, hash string) {
	random := make([]byte, 32)
	rand.Read(random) //nolint:errcheck // it never fails
	token = robotPrefix + base64.RawURLEncoding.EncodeToString(random)
	return token, tokenHash(token)
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func sameToken(hash, token string) bool {
	return subtle.ConstantTimeCompare([]byte(hash), []byte(tokenHash(token))) == 1
}

// CheckAccount says what is not right about a row's name and grants.
func CheckAccount(a store.Account) error {
	if !accountName().MatchString(a.Name) {
		return tender.Errorf(tender.Invalid, "%q is no name of a user", a.Name).Hint("letters, digits and . _ @ + - in it, 128 at most")
	}
	for _, g := range a.Grants {
		if err := CheckPattern(g.Repositories); err != nil {
			return err
		}
		for _, action := range g.Actions {
			if !slices.Contains([]string{Pull, Push, Delete}, action) {
				return tender.Errorf(tender.Invalid, "%q is nothing that can be granted", action).Hint("pull, push or delete")
			}
		}
	}
	return nil
}

// CheckPattern says whether repositories can match it.
func CheckPattern(pattern string) error {
	_, err := path.Match(pattern, "")
	bad := err != nil || len(pattern) > 255
	for level := range strings.SplitSeq(pattern, "/") {
		bad = bad || level == "" || level != "**" && strings.Contains(level, "**")
	}
	if bad {
		return tender.Errorf(tender.Invalid, "%q is no pattern of repositories", pattern).Hint("such as shop/web, shop/*, or team/** for any number of levels")
	}
	return nil
}

// tooMany is told by 429 and how long to wait.
type tooMany struct {
	error
	after time.Duration
}

func (t *tooMany) Unwrap() error { return t.error }

func tooManyFailures(wait time.Duration) error {
	return &tooMany{tender.Errorf(tender.Unavailable, "too many wrong passwords for the registry came from this address").
		Hint("wait %s, then docker login again", wait.Round(time.Second)+time.Second), wait}
}
