// Package scan says what is wrong with an image: which packages are in it, which
// advisories hold for them, what secret was left in a layer, how it is set up.
//
// It hides the unpacking of hostile archives, the extractors of packages, the index
// of advisories and the comparison of versions. It never runs anything of an image,
// never unpacks one into a file system, and is bounded in memory, time and disk.
package scan

import (
	"time"

	"github.com/tenderhq/tender"
)

// Contents is what was found in an image, before any advisory was asked. It stays the
// same for a digest, so that a new advisory needs no new reading.
type Contents struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest,omitempty"` // of the manifest; "" of an image that has none
	ImageID   string `json:"imageID"`          // of the configuration
	Platform  string `json:"platform"`         // linux/amd64
	Created   time.Time
	Distro    Distro            `json:"distro"`
	Layers    []Layer           `json:"layers"`
	Packages  []Package         `json:"packages"`
	Problems  []tender.Finding  `json:"problems"` // secrets and setup
	Labels    map[string]string `json:"labels,omitempty"`
	Read      time.Time         `json:"read"`
	Bytes     int64             `json:"bytes"` // unpacked
	// Cut says what was not looked at, and why: "usr/share/x.jar: nested deeper than 4".
	Cut []string `json:"cut,omitempty"`
}

// Distro is what /etc/os-release says.
type Distro struct {
	ID      string `json:"id"`      // debian
	Version string `json:"version"` // 12
	Name    string `json:"name"`    // Debian GNU/Linux 12 (bookworm)
}

// Layer is one step of a Dockerfile.
type Layer struct {
	Digest string `json:"digest,omitempty"` // as transferred
	DiffID string `json:"diffID"`
	Step   string `json:"step"` // RUN apt-get install -y openssl
	Bytes  int64  `json:"bytes"`
}

// Package is one that is installed.
type Package struct {
	Name      string   `json:"name"`             // as installed: libssl3
	Version   string   `json:"version"`          // whole, with epoch and revision
	Source    string   `json:"source,omitempty"` // its source package, if another: openssl
	SourceVer string   `json:"sourceVersion,omitempty"`
	Type      string   `json:"type"`      // purl's: deb, apk, rpm, golang, npm, pypi, maven, gem, cargo, composer, nuget
	Ecosystem string   `json:"ecosystem"` // OSV's: Debian:12, Alpine:v3.20, npm, PyPI, Go…; "": OSV has none
	PURL      string   `json:"purl"`
	Arch      string   `json:"arch,omitempty"`
	Path      string   `json:"path"`  // the file that tells of it
	Layer     int      `json:"layer"` // which layer brought this version
	Licenses  []string `json:"licenses,omitempty"`
}

// Report is what an image is found to be on a day.
type Report struct {
	Contents
	Findings []tender.Finding `json:"findings"` // the worst first; Problems are among them
	// DB says how old the advisories are that were asked; its zero value: there were none.
	DB      Age       `json:"db"`
	Scanned time.Time `json:"scanned"`
	// Gaps say which packages no advisory was asked about, and why: "there are no advisories of npm".
	Gaps []string `json:"gaps,omitempty"`
}

// Age is when an index of advisories was filled, and of when the newest advisory is.
type Age struct {
	Updated    time.Time `json:"updated"`
	Newest     time.Time `json:"newest"`
	Advisories int       `json:"advisories"`
	Ecosystems []string  `json:"ecosystems"`
}
