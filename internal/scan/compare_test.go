package scan_test

import (
	"strings"
	"testing"

	"github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/scan"
)

// flaws makes findings of words: "crit+" is a critical one that is fixable.
func flaws(words string) (list []tender.Finding) {
	kinds := map[string]tender.Severity{"crit": tender.Critical, "high": tender.High, "medium": tender.Medium, "negl": tender.Negligible, "unknown": tender.UnknownSeverity}
	for i, w := range strings.Fields(words) {
		f := tender.Finding{Kind: tender.Vulnerability, ID: words + string(rune('a'+i)), Package: "p", Severity: kinds[strings.Trim(w, "+")]}
		if strings.HasSuffix(w, "+") {
			f.Fixed = "2"
		}
		switch w {
		case "secret":
			f.Kind = tender.SecretLeft
		case "setup":
			f.Kind = tender.Setup
		}
		list = append(list, f)
	}
	return list
}

func TestChangesAreToldInASentence(t *testing.T) {
	for _, c := range [][3]string{
		{"", "", "nothing new"},
		{"high high high high high", "crit+ crit+", "2 new criticals, both fixable; 5 gone"},
		{"", "crit", "1 new critical, not fixable"},
		{"", "crit+ crit", "2 new criticals, 1 fixable"},
		{"", "high high", "2 new highs, neither fixable"},
		{"", "high+ high+ high+ medium medium medium", "3 new highs, all fixable; 3 new mediums, none fixable"},
		{"", "negl negl+ unknown", "2 new negligible, 1 fixable; 1 new of unknown severity, not fixable"},
		{"high", "secret secret setup", "2 new secrets; 1 new setup problem; 1 gone"},
		{"high", "", "nothing new; 1 gone"},
	} {
		if got := scan.Compare(flaws(c[0]), flaws(c[1])).String(); got != c[2] {
			t.Errorf("%q to %q: %q, want %q", c[0], c[1], got, c[2])
		}
	}
	same := scan.Compare(flaws("high+"), flaws("high+"))
	if len(same.Stayed) != 1 || len(same.New)+len(same.Gone) != 0 {
		t.Errorf("got %+v", same)
	}
}

// The examples of FIRST: https://www.first.org/cvss/v3-1/examples and v4-0/examples
func TestScores(t *testing.T) {
	for vector, want := range map[string]float64{
		"CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:L/I:L/A:N":                        5.4,
		"CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N":                        6.1,  // phpMyAdmin, CVE-2013-1937
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N":                        7.5,  // Heartbleed, CVE-2014-0160
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H":                        9.8,  // Shellshock, CVE-2014-6271
		"CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N":                        6.4,  // MySQL, CVE-2013-0375
		"CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N":                        3.1,  // POODLE, CVE-2014-3566
		"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H":                        10.0, // Log4Shell
		"CVSS:3.1/AV:P/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N":                        0,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H":     10,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N":     9.3,
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N":     8.7, // Heartbleed
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N/E:U": 8.7, // base alone
		"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:N/SC:N/SI:N/SA:N":     0,
	} {
		if got, ok := scan.Score(vector); !ok || got != want {
			t.Errorf("%s: %v, %v, want %v", vector, got, ok, want)
		}
	}
	for _, vector := range []string{"", "7.5", "AV:N/AC:L/Au:N/C:P/I:P/A:P", "CVSS:3.1/AV:N", "CVSS:4.0/", "CVSS:9.0/AV:N"} {
		if got, ok := scan.Score(vector); ok {
			t.Errorf("%q has the score %v", vector, got)
		}
	}
}

func TestReportsOfOtherScanners(t *testing.T) {
	for name, report := range map[string]string{
		"trivy": `{"SchemaVersion":2,"Metadata":{"DiffIDs":["sha256:a","sha256:b"]},"Results":[{"Target":"x (debian 12)","Type":"debian","Vulnerabilities":[{"VulnerabilityID":"CVE-2023-5363","PkgName":"libssl3","InstalledVersion":"3.0.11-1~deb12u1","FixedVersion":"3.0.11-1~deb12u2","Layer":{"DiffID":"sha256:b"},"Severity":"HIGH","CVSS":{"nvd":{"V3Vector":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}},"PublishedDate":"2023-10-25T18:17:43.613Z"}]}]}`,
		"grype": `{"matches":[{"vulnerability":{"id":"CVE-2023-5363","severity":"High","cvss":[{"vector":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],"fix":{"versions":["3.0.11-1~deb12u2"],"state":"fixed"}},"artifact":{"name":"libssl3","version":"3.0.11-1~deb12u1","type":"deb","upstreams":[{"name":"openssl"}],"locations":[{"path":"/var/lib/dpkg/status"}]}}]}`,
	} {
		found, err := scan.ReadFindings(strings.NewReader(report))
		if err != nil || len(found) != 1 || line(found[0]) != `CVE-2023-5363 libssl3 3.0.11-1~deb12u1 high fixed "3.0.11-1~deb12u2" []` || found[0].Score != 7.5 {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
	for _, bad := range []string{"", "[]", "{}", `{"SchemaVersion":2,"Results":7}`} {
		if _, err := scan.ReadFindings(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
