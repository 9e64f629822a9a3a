package registry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"shop/*", "shop/web", true},
		{"shop/*", "shop", false},
		{"shop/*", "shop/web/base", false},
		{"shop/*", "shops/web", false},
		{"**", "web", true},
		{"**", "a/b/c", true},
		{"team/**", "team", true},
		{"team/**", "team/a/b/c", true},
		{"team/**", "teams/a", false},
		{"**/base", "base", true},
		{"**/base", "a/b/base", true},
		{"**/base", "a/base/b", false},
		{"a/**/z", "a/z", true},
		{"a/**/z", "a/b/z/c/z", true},
		{"a/**/m/**/z", "a/m/m/z", true},
		{"a/**/m/**/z", "a/z", false},
		{"a/**/m*/z", "a/b/mine/z", true},
		{"shop/w?b", "shop/web", true},
		{"*", "web", true},
		{"*", "a/b", false},
		{"", "web", false},
		{"[", "[", false},
		{strings.Repeat("**/", 60) + "x", strings.Repeat("a/", 120) + "y", false},
	} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("%q fits %q: %v", c.pattern, c.name, got)
		}
	}
	for _, bad := range []string{"", "a//b", "/a", "a/", "[", "a**/b"} {
		if CheckPattern(bad) == nil {
			t.Errorf("%q is taken for a pattern", bad)
		}
	}
}

// known is a store with accounts in it.
func known(t *testing.T, list ...store.Account) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	keep(t, s, list...)
	return s
}

func keep(t *testing.T, s *store.Store, list ...store.Account) {
	t.Helper()
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for _, a := range list {
			if err := tx.PutAccount(a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func hashed(t *testing.T, password string) string {
	t.Helper()
	h, err := Hash(password)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func knock(name, password string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	if name != "" {
		r.SetBasicAuth(name, password)
	}
	return r
}

func TestWhoEnters(t *testing.T) {
	now := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	token, tokenHash := RobotToken()
	grants := []store.AccountGrant{{Repositories: "shop/*", Actions: []string{Pull, Push}}}
	s := known(t,
		store.Account{Name: "ann", Hash: hashed(t, "correct horse"), Admin: true},
		store.Account{Name: "ci", Hash: tokenHash, Robot: true, Grants: grants, Expires: now.Add(time.Hour)},
	)
	a := NewAccounts(AccountsOptions{Store: s, Anonymous: []string{"public/*"}, Now: func() time.Time { return now }, Tokens: func(r *http.Request) (Account, error) {
		_, password, _ := r.BasicAuth()
		switch password {
		case "":
			return Account{}, nil
		case "tender_good":
			return Account{Name: "token deploy"}, nil
		}
		return Account{}, tender.Errorf(tender.Denied, "this token is not known")
	}})
	enters := func(name, password, want string) Account {
		t.Helper()
		who, err := a.Enter(knock(name, password))
		if want == "" && name != "" {
			if tender.KindOf(err) != tender.Denied {
				t.Errorf("%s with %q: %v, %v", name, password, who, err)
			}
			return who
		}
		if err != nil || who.Name != want {
			t.Errorf("%s with %q: %v, %v", name, password, who, err)
		}
		return who
	}
	if who := enters("", "", ""); !who.May("public/web", Pull) || who.May("public/web", Push) || who.May("shop/web", Pull) {
		t.Errorf("nobody may %v", who)
	}
	if who := enters("ann", "correct horse", "ann"); !who.May("a/b/c", Delete) {
		t.Errorf("ann may %v", who)
	}
	if who := enters("ci", token, "ci"); !who.May("shop/web", Push) || who.May("shop/web", Delete) || who.May("other/web", Pull) || !who.May("public/x", Pull) {
		t.Errorf("ci may %v", who)
	}
	enters("ann", "wrong horse", "")
	enters("ann", token, "")
	enters("ci", tokenHash, "")
	enters("eve", "correct horse", "")
	enters("anything", "tender_good", "token deploy")
	enters("ann", "tender_good", "token deploy")
	enters("ann", "tender_bad", "")

	// Another password counts at once, though the old one is remembered.
	keep(t, s, store.Account{Name: "ann", Hash: hashed(t, "battery staple")})
	enters("ann", "correct horse", "")
	if who := enters("ann", "battery staple", "ann"); who.May("a/b", Pull) {
		t.Errorf("ann may still %v", who)
	}

	var used time.Time
	err := s.View(t.Context(), func(tx *store.Tx) error {
		row, err := tx.Account("ci")
		used = row.Used
		return err
	})
	if err != nil || !used.Equal(now) {
		t.Errorf("ci was used %v, %v", used, err)
	}
	now = now.Add(2 * time.Hour)
	if _, err := a.Enter(knock("ci", token)); tender.KindOf(err) != tender.Denied || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired robot: %v", err)
	}
}

// Who guesses waits; who was verified before, and robots, do not wait with him.
func TestGuessing(t *testing.T) {
	now := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	token, tokenHash := RobotToken()
	s := known(t, store.Account{Name: "ann", Hash: hashed(t, "correct horse")}, store.Account{Name: "ci", Hash: tokenHash, Robot: true})
	a := NewAccounts(AccountsOptions{Store: s, Now: func() time.Time { return now }})
	if _, err := a.Enter(knock("ann", "correct horse")); err != nil {
		t.Fatal(err)
	}
	for i := range failuresFree {
		if _, err := a.Enter(knock("ann", fmt.Sprint("guess ", i))); tender.KindOf(err) != tender.Denied {
			t.Fatalf("guess %d: %v", i, err)
		}
	}
	_, err := a.Enter(knock("bob", "guess"))
	if tender.KindOf(err) != tender.Unavailable {
		t.Errorf("one guess too many: %v", err)
	}
	w := httptest.NewRecorder()
	opened(t, Options{Store: s, Enter: a.Enter}).Handler().ServeHTTP(w, knock("bob", "guess"))
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "TOOMANYREQUESTS") {
		t.Errorf("answered %d %v %s", w.Code, w.Header(), w.Body)
	}
	if _, err := a.Enter(knock("ann", "correct horse")); err != nil {
		t.Errorf("ann, who was verified: %v", err)
	}
	if _, err := a.Enter(knock("ci", token)); err != nil {
		t.Errorf("a robot: %v", err)
	}
	now = now.Add(failuresEach)
	if _, err := a.Enter(knock("bob", "guess")); tender.KindOf(err) != tender.Denied {
		t.Errorf("after the wait: %v", err)
	}
	var f failures
	for i := range 2 * failuresKnown {
		f.add(fmt.Sprint(i), now)
	}
	if len(f.full) > failuresKnown {
		t.Errorf("%d sources are remembered", len(f.full))
	}
	if one, two := source("[2001:db8::1]:1"), source("[2001:db8::2]:9"); one != two {
		t.Errorf("%s and %s are one network", one, two)
	}
}

func TestHtpasswd(t *testing.T) {
	good := hashed(t, "correct horse")
	list, err := ReadHtpasswd(strings.NewReader("# users\n\nann:" + strings.Replace(good, "$2a$", "$2y$", 1) + "\nbob:" + good + "\r\n"))
	if err != nil || len(list) != 2 || list[0].Name != "ann" {
		t.Fatalf("%v, %v", list, err)
	}
	a := NewAccounts(AccountsOptions{Store: known(t, list...)})
	if _, err := a.Enter(knock("ann", "correct horse")); err != nil {
		t.Error(err)
	}
	text := "ann:" + good + "\nbob:$apr1$x$hideme\ncarl:{SHA}hideme\nann:" + good + "\nnobody\ndora:$2y$31$" + good[7:] + "\n"
	_, err = ReadHtpasswd(strings.NewReader(text))
	for _, want := range []string{"line 2: the password of bob is kept as apr1", "htpasswd -B FILE bob", "line 3", "SHA-1", "line 4: ann stands on line 1", "line 5", "line 6: the bcrypt cost 31"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "hideme") {
		t.Errorf("a hash is in %v", err)
	}
}

// A client of the registry logs in as a user and as a robot, and each does what it may.
func TestAccountsPushAndPull(t *testing.T) {
	token, tokenHash := RobotToken()
	s := known(t,
		store.Account{Name: "ann", Hash: hashed(t, "correct horse"), Grants: []store.AccountGrant{{Repositories: "**", Actions: []string{Pull}}}},
		store.Account{Name: "ci", Hash: tokenHash, Robot: true, Grants: []store.AccountGrant{{Repositories: "public/*", Actions: []string{Pull, Push}}}})
	r := listening(t, Options{Store: s, Enter: NewAccounts(AccountsOptions{Store: s, Anonymous: []string{"public/*"}}).Enter})
	login := func(name, password string) remote.Option {
		return remote.WithAuth(&authn.Basic{Username: name, Password: password})
	}
	img, err := random.Image(1024, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r.ref("public/web:1"), img, login("ann", "correct horse")); err == nil {
		t.Error("ann pushed")
	}
	if err := remote.Write(r.ref("public/web:1"), img, login("ci", token)); err != nil {
		t.Error(err)
	}
	if _, err := remote.Image(r.ref("public/web:1"), login("ann", "correct horse")); err != nil {
		t.Error(err)
	}
	if _, err := remote.Image(r.ref("public/web:1")); err != nil {
		t.Errorf("without a login: %v", err)
	}
	if _, err := remote.Image(r.ref("public/web:1"), login("ann", "wrong horse")); err == nil {
		t.Error("a wrong password pulls")
	}
}
