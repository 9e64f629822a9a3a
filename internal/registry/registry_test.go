package registry

import (
	"net/http"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// ann may do everything, bob may pull from shop/*, nobody else may knock.
func enter(r *http.Request) (Account, error) {
	name, password, ok := r.BasicAuth()
	switch {
	case !ok:
		return Account{}, nil
	case password != "secret":
		return Account{}, tender.Errorf(tender.Denied, "wrong name or password")
	case name == "ann":
		return Account{Name: "ann", Admin: true}, nil
	}
	return Account{Name: name, Grants: []Grant{{"shop/*", []string{Pull}}}}, nil
}

// opened is a registry in a folder of the test's own.
func opened(t *testing.T, o Options) *Registry {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Store == nil {
		s, err := store.Open(t.TempDir(), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		o.Store = s
	}
	if o.Enter == nil {
		o.Enter = enter
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC) }
	}
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
