package scan

import "testing"

// Expressions are compiled when they are needed: one that is none would be found by a user.
func TestFormsOfSecretsAreExpressions(t *testing.T) {
	for _, k := range tokens {
		if k.form().NumSubexp() < 1 {
			t.Errorf("%s has no group for its secret", k.rule)
		}
	}
	for _, k := range secretFiles {
		if k.form().NumSubexp() < 1 {
			t.Errorf("%s has no group for its secret", k.rule)
		}
	}
	for _, f := range []func() int{assignment().NumSubexp, setInHistory().NumSubexp, userInURL().NumSubexp} {
		if f() < 2 {
			t.Error("an expression lacks groups")
		}
	}
}
