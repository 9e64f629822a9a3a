package scan

import (
	"strings"

	"github.com/google/osv-scalibr/semantic"
)

// versionMost is how long a version may be: nothing real comes near.
const versionMost = 300

// compareVersions orders two versions as the ecosystem's own tools do. ok is false
// when one of them is no version there.
//
// The three families of distributions are ours: they are asked thousands of times for
// an image, and dpkg, rpm and apk differ from the library where a revision, a release
// or a trailing zero is missing.
func compareVersions(ecosystem, a, b string) (order int, ok bool) {
	if len(a) > versionMost || len(b) > versionMost {
		return 0, false
	}
	switch ecosystem {
	case "Debian", "Ubuntu":
		return compareDeb(a, b)
	case "Red Hat", "Rocky Linux", "AlmaLinux", "SUSE", "openSUSE", "Mageia", "openEuler":
		return compareRPM(a, b), true
	case "Alpine", "Wolfi", "Chainguard", "Alpaquita", "MinimOS", "BellSoft Hardened Containers":
		return compareAPK(a, b)
	case "Go":
		a, b = goVersion(a), goVersion(b)
	}
	switch ecosystem {
	case "Go", "npm", "crates.io", "Hex":
		// What does not begin with a number ("(devel)", "latest") has no order.
		if !startsWithDigit(strings.TrimPrefix(a, "v")) || !startsWithDigit(strings.TrimPrefix(b, "v")) {
			return 0, false
		}
	}
	va, err := semantic.Parse(a, ecosystem)
	if err != nil {
		return 0, false
	}
	order, err = va.CompareStr(b)
	return sign(order), err == nil
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

func startsWithDigit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

// goVersion turns what a Go toolchain calls itself (go1.22rc1, go1.21.0 X:boringcrypto)
// into what the database writes: 1.22.0-rc.1.
func goVersion(v string) string {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "go"), " ")
	for _, pre := range []string{"rc", "beta"} {
		release, n, ok := strings.Cut(v, pre)
		if !ok || n == "" || strings.Trim(n, "0123456789") != "" || strings.Trim(release, "0123456789.") != "" {
			continue
		}
		for strings.Count(release, ".") < 2 {
			release += ".0"
		}
		return release + "-" + pre + "." + n
	}
	return v
}

// releaseOf says whether an advisory's release is the package's: what follows the
// first colon of both ecosystems.
func releaseOf(base, installed, advised string) bool {
	switch base {
	case "Alpine":
		return strings.TrimPrefix(installed, "v") == strings.TrimPrefix(advised, "v")
	case "Debian", "Rocky Linux", "AlmaLinux":
		return major(installed) == major(advised)
	case "Ubuntu":
		i, _ := ubuntuRelease(installed)
		a, _ := ubuntuRelease(advised)
		return i == a
	case "Red Hat":
		return redHatRelease(installed) != "" && redHatRelease(installed) == redHatRelease(advised)
	}
	return strings.EqualFold(installed, advised)
}

func major(release string) string {
	m, _, _ := strings.Cut(release, ".")
	return m
}

// ubuntuRelease takes "Pro:FIPS-updates:22.04:LTS" apart: the release, and the channel
// before it, which is empty for what everybody gets.
func ubuntuRelease(s string) (release, channel string) {
	parts := strings.Split(strings.TrimSuffix(s, ":LTS"), ":")
	last := len(parts) - 1
	return parts[last], strings.Join(parts[:last], ":")
}

// redHatRelease gives the major release of a CPE's tail, "enterprise_linux:9::baseos".
// Other products, such as rhel_eus:9.2, have packages of their own.
func redHatRelease(s string) string {
	product, rest, ok := strings.Cut(s, ":")
	if !ok {
		return major(product)
	}
	if product != "enterprise_linux" {
		return ""
	}
	release, _, _ := strings.Cut(rest, ":")
	return major(release)
}
