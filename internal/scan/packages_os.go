package scan

import (
	"bytes"
	"io"
	"strings"
)

// stanza reads a file of paragraphs of "Field: value" lines, as dpkg and Python have
// them. Only wanted fields are kept; lines that go on with a space belong to nothing
// wanted.
func stanzas(body io.ReaderAt, size int64, wanted func(field string) bool, each func(map[string]string)) error {
	fields := map[string]string{}
	end := func() {
		if len(fields) > 0 {
			each(fields)
			clear(fields)
		}
	}
	err := lines(body, size, func(line []byte) {
		if len(bytes.TrimSpace(line)) == 0 {
			end()
			return
		}
		if line[0] == ' ' || line[0] == '\t' {
			return
		}
		k, v, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(v) > 4096 || !wanted(string(k)) {
			return
		}
		if _, twice := fields[string(k)]; !twice {
			fields[string(k)] = string(bytes.TrimSpace(v))
		}
	})
	end()
	return err
}

// parseDpkg reads /var/lib/dpkg/status, or one file of status.d. A package counts if
// its state is installed, or halfway there: its files lie in the image then.
func parseDpkg(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	f.lists = true
	single := strings.Contains(name, "status.d/") // has no Status where a build tool wrote it
	wanted := func(k string) bool {
		switch k {
		case "Package", "Version", "Architecture", "Source", "Status":
			return true
		}
		return false
	}
	return stanzas(body, size, wanted, func(s map[string]string) {
		state := strings.Fields(s["Status"])
		if len(state) == 3 {
			switch state[2] {
			case "not-installed", "config-files":
				return
			}
		} else if !single {
			return
		}
		p := Package{Name: s["Package"], Version: s["Version"], Arch: s["Architecture"], Type: "deb"}
		p.Source, p.SourceVer = source(s["Source"])
		if p.Source == p.Name {
			p.Source = ""
		}
		if p.SourceVer == "" && p.Source != "" {
			p.SourceVer = p.Version
		}
		r.found(f, name, p)
	})
}

// source takes apart "openssl (3.0.11-1)"; the version is there where it differs.
func source(field string) (name, version string) {
	name, version, _ = strings.Cut(field, " ")
	return name, strings.Trim(version, "() ")
}

// parseApk reads /lib/apk/db/installed: paragraphs of "P:name". F: is a directory, R: a
// file in it. https://wiki.alpinelinux.org/wiki/Apk_spec
func parseApk(r *reading, l *layer, name string, f *file, body io.ReaderAt, size int64) error {
	f.lists = true
	var p Package
	var dir string
	end := func() {
		if p.Source == p.Name {
			p.Source = ""
		}
		if p.Source != "" {
			p.SourceVer = p.Version
		}
		p.Type = "apk"
		r.found(f, name, p)
		p, dir = Package{}, ""
	}
	err := lines(body, size, func(line []byte) {
		if len(line) == 0 {
			end()
			return
		}
		if len(line) < 2 || line[1] != ':' || len(line) > maxPath {
			return
		}
		v := string(line[2:])
		switch line[0] {
		case 'P':
			p.Name = v
		case 'V':
			p.Version = v
		case 'A':
			p.Arch = v
		case 'o':
			p.Source = v
		case 'L':
			p.Licenses = []string{v}
		case 'F':
			dir = v
		case 'R':
			r.own(l, inside(dir+"/"+v))
		}
	})
	end()
	return err
}

// Ecosystems as OSV names them: https://ossf.github.io/osv-schema/#defined-ecosystems
func (d Distro) ecosystem(release map[string]string) string {
	major, _, _ := strings.Cut(d.Version, ".")
	minor := func() string { // 3.20 of 3.20.1
		f := strings.SplitN(d.Version, ".", 3)
		if len(f) < 2 {
			return d.Version
		}
		return f[0] + "." + f[1]
	}
	if d.Version == "" && d.ID != "wolfi" && d.ID != "chainguard" {
		return ""
	}
	switch d.ID {
	case "debian", "raspbian":
		return "Debian:" + major
	case "ubuntu":
		if lts(d.Version) {
			return "Ubuntu:" + d.Version + ":LTS"
		}
		return "Ubuntu:" + d.Version
	case "alpine":
		return "Alpine:v" + minor()
	case "wolfi":
		return "Wolfi"
	case "chainguard":
		return "Chainguard"
	case "rhel":
		return "Red Hat:enterprise_linux:" + major
	case "rocky":
		return "Rocky Linux:" + major
	case "almalinux":
		return "AlmaLinux:" + major
	case "opensuse-leap":
		return "openSUSE:Leap " + d.Version
	case "opensuse-tumbleweed":
		return "openSUSE:Tumbleweed"
	case "sles":
		if sp := strings.TrimPrefix(d.Version, major+"."); sp != d.Version {
			return "SUSE:Linux Enterprise Server " + major + " SP" + sp
		}
		return "SUSE:Linux Enterprise Server " + major
	case "openEuler":
		if v := release["VERSION"]; v != "" { // 22.03 (LTS-SP3)
			return "openEuler:" + strings.NewReplacer(" (", "-", ")", "").Replace(v)
		}
	case "mageia":
		return "Mageia:" + major
	case "photon":
		return "Photon OS:" + d.Version
	case "azurelinux", "mariner":
		return "Azure Linux:" + major
	}
	return ""
}

// lts says whether an Ubuntu is one with long support: April of an even year.
func lts(version string) bool {
	year, month, _ := strings.Cut(version, ".")
	return strings.HasPrefix(month, "04") && len(year) == 2 && (year[1]-'0')%2 == 0
}

// codenames are those of Debians that say no number, as testing does before its release.
var codenames = map[string]string{"bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14"}

func distro(release map[string]string) Distro {
	d := Distro{ID: release["ID"], Version: release["VERSION_ID"], Name: release["PRETTY_NAME"]}
	if d.Version == "" && d.ID == "debian" {
		d.Version = codenames[release["VERSION_CODENAME"]]
	}
	if d.Name == "" {
		d.Name = release["NAME"]
	}
	return d
}
