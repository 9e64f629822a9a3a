package collect

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
)

// A value in quotes went up to its first \" alone, and up to its first space or comma.
func TestAValueInQuotesMustGoWhole(t *testing.T) {
	r, err := newRules(tender.Logs{Redact: []string{"token"}})
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		`{"password":"ab\"cdef","n":1}`:                               `{"password":"[token]","n":1}`,
		`{"password":"hunter2\"rest of it","n":"x"}`:                  `{"password":"[token]","n":"x"}`,
		`{"password":"a\\","n":"hidden"}`:                             `{"password":"a\\","n":"hidden"}`,
		`{"password":"abcd\\\\","n":"shown"}`:                         `{"password":"[token]","n":"shown"}`,
		`{"password": " a b, c; d&e}f","n":"shown"}`:                  `{"password": "[token]","n":"shown"}`,
		`{"authorization":"Bearer ab\"cd","n":1}`:                     `{"authorization":"Bearer [token]","n":1}`,
		`{"body":"{\"token\":\"ab\\\"cd ef\",\"n\":1}","m":1}`:        `{"body":"{\"token\":\"[token]\",\"n\":1}","m":1}`,
		`{"body":"{\"token\":\"abcdef\\\\\",\"n\":1}","m":1}`:         `{"body":"{\"token\":\"[token]\",\"n\":1}","m":1}`,
		`{"b":"{\"b\":\"{\\\"token\\\":\\\"ab\\\\\\\"cd\\\"}\"}"}`:    `{"b":"{\"b\":\"{\\\"token\\\":\\\"[token]\\\"}\"}"}`,
		`{"body":"{\"token\":\"abcd torn","m":1}`:                     `{"body":"{\"token\":\"[token]","m":1}`,
		`level=info password="correct horse \"battery\"" user=bob`:    `level=info password="[token]" user=bob`,
		`{'secret': 'it\'s ours', 'n': 1}`:                            `{'secret': '[token]', 'n': 1}`,
		`{"msg":"login with password='ab cd' failed","user":"bob"}`:   `{"msg":"login with password='[token]' failed","user":"bob"}`,
		`{"msg":"a token: 'tis odd","user":"o'neil"}`:                 `{"msg":"a token: '[token]","user":"o'neil"}`,
		`{"password":"token=abcdef ghi","token":"jklm"}`:              `{"password":"[token]","token":"[token]"}`,
		`{"msg":"bad token:","count":12345,"user":"bob"}`:             `{"msg":"bad token:","count":12345,"user":"bob"}`,
		`{"msg":"said \"token:\" and no more","user":"bob"}`:          `{"msg":"said \"token:\" and no more","user":"bob"}`,
		`msg="no token:" count=12345 path="/x"`:                       `msg="no token:" count=12345 path="/x"`,
		`{"msg":"password=abcd\nnext","n":"password=efgh\\"}`:         `{"msg":"password=[token]\nnext","n":"password=[token]\\"}`,
		"password=\"abcd efgh\nsecond line":                           "password=\"[token]\nsecond line",
		`token=abcdef&x=1 api_key: klmnop, Authorization: Basic cXdl`: `token=[token]&x=1 api_key: [token], Authorization: Basic [token]`,
		`{"token":12345,"pwd":"abc","secret":"x"}`:                    `{"token":[token],"pwd":"abc","secret":"x"}`,
	} {
		if got, _ := r.clean(in); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
	p := parserOf(t, tender.Logs{Redact: []string{"token"}})
	p.block([]byte(recordsOf(`{"user":"bob","password":"first\"second"}`)), true)
	if got, want := show(p.rows.list), `"{\"user\":\"bob\",\"password\":\"[token]\"}" user="bob" password="[token]"`+"\n"; got != want {
		t.Errorf("(-want +got)\n%s", cmp.Diff(want, got))
	}
}

// The pattern took 3 s for 1 MiB without a space; what is found must be the same.
func TestEmailsAreWhatThePatternSays(t *testing.T) {
	pattern := regexp.MustCompile(`[\w.+%-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+`)
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{"@", "@", "a@b", ".", ".c", "a", "Z", "9", "-", "_", "+", "%", " ", "é", strings.Repeat("x", 62), strings.Repeat("y", 40)}
	hits := 0
	for range 10_000 {
		var b strings.Builder
		for range 1 + random.IntN(14) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		want, got := found(pattern, b.String()), emails(b.String())
		hits += len(want)
		if len(want) != len(got) {
			t.Fatalf("%q: %v, want %v", b.String(), got, want)
		}
		for i := range want {
			if want[i] != got[i] {
				t.Fatalf("%q: %v, want %v", b.String(), got, want)
			}
		}
	}
	if hits < 500 {
		t.Errorf("only %d addresses to compare", hits)
	}
}

func BenchmarkEmails(b *testing.B) {
	text := strings.Repeat("x", 1<<19) + "@" + strings.Repeat("y", 1<<19)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		emails(text)
	}
}
