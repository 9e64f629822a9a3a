package scan

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// order reads "a < b" and gives the two and the sign.
func order(t *testing.T, s string) (a, b string, want int) {
	t.Helper()
	f := strings.Fields(s)
	if len(f) != 3 {
		t.Fatalf("not a pair: %q", s)
	}
	return f[0], f[2], map[string]int{"<": -1, "=": 0, ">": 1}[f[1]]
}

func TestVersionsOfEachEcosystem(t *testing.T) {
	for ecosystem, pairs := range map[string][]string{
		"Debian": {"1.0~rc1 < 1.0", "1.0 < 1.0+b1", "1:0.1 > 2.0", "1.0 = 1.0-0", "0:1 = 1", "1.0a < 1.0+", "1.0~~ < 1.0~", "1.0-1~deb12u1 < 1.0-1", "9.10 > 9.9", "1.01 = 1.1"},
		// From rpm's own rpmvercmp.at.
		"Red Hat": {"1.0 = 1.0", "1.0 < 2.0", "2.0.1a > 2.0.1", "5.5p10 > 5.5p1", "10xyz < 10.1xyz", "xyz10 < xyz10.1", "xyz.4 < 8", "5.5p2 < 5.6p1", "6.0.rc1 > 6.0", "10b2 > 10a1", "1.0aa < 1.0ab", "10.0001 = 10.1", "10.0001 < 10.0039", "20101121 < 20101122", "2_0 = 2.0", "a = a", "a+ = a_", "+a = _a", "1.0~rc1 < 1.0", "1.0~rc1~git123 < 1.0~rc1", "1.0^ > 1.0", "1.0^git1 < 1.0^git2", "1.0^git1 < 1.01", "1.0^20160101 < 1.0.1", "1.0^20160101^git1 > 1.0^20160101", "1.0~rc1^git1 > 1.0~rc1", "1.0^git1~pre < 1.0^git1", "0:1-1 = 1-1", "1:1-1 > 2-1", "1.0 = 1.0-5", "1.0-2.el8 < 1.0-2.el8_5"},
		// From apk-tools' version.data.
		"Alpine": {"2.34 > 0.1.0_alpha", "0.1.0_alpha < 0.1.0_alpha2", "0.1.0_alpha < 0.1.3_alpha", "0.1.0_alpha2 > 0.1.0_alpha", "2.2.39 > 2.2.3", "1.0.5 > 1.0", "1.0.4_p1 > 1.0.4", "1.2_rc1 < 1.2", "1.2 < 1.2.1", "1.0a < 1.0b", "1.0 < 1.0a", "1.0-r1 < 1.0-r2", "1.0-r9 < 1.0-r10", "0.8_beta1 > 0.8_alpha1", "1.0_p10 > 1.0_p9", "1.3_alpha < 1.3.0", "1.02 < 1.1", "6.05 < 6.1", "1.0 < 1.0-r0", "23_foo ? 4", "1.0.0 > 1.0"},
		"npm":    {"1.0.0-alpha < 1.0.0-alpha.1", "1.0.0-alpha.beta < 1.0.0-beta", "1.0.0-beta.2 < 1.0.0-beta.11", "1.0.0-rc.1 < 1.0.0", "1.0.0+a = 1.0.0+b", "v1.2.3 = 1.2.3"},
		"Go":     {"go1.22rc1 < 1.22.0", "1.22.0-0 < go1.22rc1", "v0.0.0-20220101000000-abcdefabcdef < v0.0.1", "v2.0.0+incompatible = 2.0.0", "go1.21.10 > go1.21.9"},
		"PyPI":   {"1.0.dev1 < 1.0a1", "1.0rc1 < 1.0", "1.0 < 1.0.post1", "1.0 = 1.0.0", "1!1.0 > 2.0"},
		"Maven":  {"1.0-alpha-1 < 1.0-beta-1", "1.0-SNAPSHOT < 1.0", "1.0 < 1.0-sp", "2.0-beta9 < 2.0", "1.0.RELEASE = 1.0-ga"},
	} {
		for _, pair := range pairs {
			if strings.Contains(pair, "?") {
				a, b, _ := strings.Cut(pair, " ? ")
				if _, ok := compareVersions(ecosystem, a, b); ok {
					t.Errorf("%s: %s was compared", ecosystem, pair)
				}
				continue
			}
			a, b, want := order(t, pair)
			got, ok := compareVersions(ecosystem, a, b)
			back, _ := compareVersions(ecosystem, b, a)
			if !ok || got != want || back != -want {
				t.Errorf("%s: %s: got %d, back %d, %v", ecosystem, pair, got, back, ok)
			}
		}
	}
}

func TestDebianVersionsAsDpkgComparesThem(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("dpkg is not here to be compared with")
	}
	rnd := rand.New(rand.NewPCG(7, 43)) // the same pairs each time
	pieces := []string{"0", "1", "2", "09", "10", ".", "~", "+", "a", "b", "rc", "dfsg", "deb12u1", "ubuntu0.1", "~~", "+b1", "Z"}
	random := func() string {
		var s strings.Builder
		if rnd.IntN(4) == 0 {
			fmt.Fprintf(&s, "%d:", rnd.IntN(3))
		}
		s.WriteString(fmt.Sprint(rnd.IntN(3)))
		for range rnd.IntN(5) {
			s.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		if rnd.IntN(2) == 0 {
			s.WriteString("-" + fmt.Sprint(rnd.IntN(3)))
			for range rnd.IntN(3) {
				s.WriteString(pieces[rnd.IntN(len(pieces))])
			}
		}
		return s.String()
	}
	var script strings.Builder
	var pairs [][2]string
	for range 400 {
		a, b := random(), random()
		pairs = append(pairs, [2]string{a, b})
		fmt.Fprintf(&script, "if dpkg --compare-versions '%s' lt '%s'; then echo -1; elif dpkg --compare-versions '%s' eq '%s'; then echo 0; else echo 1; fi\n", a, b, a, b)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Fields(string(out))
	if len(said) != len(pairs) {
		t.Fatalf("%d answers for %d pairs", len(said), len(pairs))
	}
	for i, p := range pairs {
		if got, ok := compareDeb(p[0], p[1]); !ok || fmt.Sprint(got) != said[i] {
			t.Errorf("%q %q: got %d, %v; dpkg says %s", p[0], p[1], got, ok, said[i])
		}
	}
}

var fuzzed = []string{"Debian", "Red Hat", "Alpine", "npm", "Go", "PyPI", "Maven", "RubyGems", "crates.io", "Packagist", "NuGet"}

func FuzzVersions(f *testing.F) {
	f.Add("1.0", "1.0-1", "1:2~rc1")
	f.Add("1.0_alpha", "v1.0.0-0", "1.0^git")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for _, e := range fuzzed {
			ab, ok := compareVersions(e, a, b)
			ba, back := compareVersions(e, b, a)
			if ok != back {
				t.Fatalf("%s: %q and %q compare in one direction alone", e, a, b)
			}
			if e != "Debian" && e != "Red Hat" && e != "Alpine" {
				continue // the library's own orders: that they return is all we promise
			}
			if ok && ab != -ba {
				t.Fatalf("%s: %q %q: %d and %d", e, a, b, ab, ba)
			}
			bc, ok2 := compareVersions(e, b, c)
			ac, ok3 := compareVersions(e, a, c)
			// rpm's own order is not transitive where a release is missing.
			if e != "Red Hat" && ok && ok2 && ok3 && ab <= 0 && bc <= 0 && ac > 0 {
				t.Fatalf("%s: %q <= %q <= %q, but not the first and the last", e, a, b, c)
			}
		}
	})
}
