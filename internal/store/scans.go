package store

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tenderhq/tender"
)

const scansTable = `
CREATE TABLE scans (
	image   TEXT PRIMARY KEY, -- digest of the manifest, or the image's ID where it has none
	ref     TEXT NOT NULL,
	scanned INTEGER NOT NULL,
	db      INTEGER NOT NULL, -- when the advisories were new
	needed  INTEGER NOT NULL, -- when somebody last needed it
	report  BLOB NOT NULL     -- gzip
) STRICT, WITHOUT ROWID;
CREATE INDEX scans_needed ON scans (needed);
`

// scanVerdicts: what the report comes to, so that lists need not unpack it.
const scanVerdicts = `
ALTER TABLE scans ADD COLUMN version TEXT NOT NULL DEFAULT '';
ALTER TABLE scans ADD COLUMN counts TEXT NOT NULL DEFAULT ''; -- JSON
`

// keepScans is how long the scan of an image that nobody needs is kept.
const keepScans = 90 * 24 * time.Hour

// mostReport is what a report may have, unpacked.
const mostReport = 256 << 20

// Scan is the newest report on an image.
type Scan struct {
	Image     string // digest of the manifest, or the image's ID where it has none
	Reference string // as it was asked for
	Scanned   time.Time
	DB        time.Time // how new the advisories were that were asked; zero: there were none
	Version   string    // of who has read the image
	Counts    string    // what the report comes to, as its writer has it
	Report    []byte    // as the room of scans writes it
}

// PutScan writes a report in the place of the one before, and drops those of images
// that nobody has needed for long.
func (tx *Tx) PutScan(s Scan) error {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(s.Report)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("pack the scan of %s: %w", s.Reference, err)
	}
	var db int64
	if !s.DB.IsZero() {
		db = stamp(s.DB)
	}
	if _, err := tx.exec(`INSERT OR REPLACE INTO scans (image, ref, scanned, db, needed, version, counts, report) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		s.Image, s.Reference, stamp(s.Scanned), db, stamp(s.Scanned), s.Version, s.Counts, packed.Bytes()); err != nil {
		return fmt.Errorf("write the scan of %s: %w", s.Reference, err)
	}
	if _, err := tx.exec(`DELETE FROM scans WHERE needed < ?`, stamp(s.Scanned.Add(-keepScans))); err != nil {
		return fmt.Errorf("drop old scans: %w", err)
	}
	return nil
}

// NeedScans says that these images are in use, so that their scans are kept.
func (tx *Tx) NeedScans(images []string, now time.Time) error {
	for _, image := range images {
		if _, err := tx.exec(`UPDATE scans SET needed = max(needed, ?) WHERE image = ?`, stamp(now), image); err != nil {
			return fmt.Errorf("keep the scan of %s: %w", image, err)
		}
	}
	return nil
}

// Scan returns the newest report on an image; NotFound if there is none.
func (tx *Tx) Scan(image string) (Scan, error) {
	list, err := collect(tx, func(scan func(...any) error) (s Scan, err error) {
		var scanned, db int64
		var packed []byte
		if err := scan(&s.Image, &s.Reference, &scanned, &db, &packed); err != nil {
			return s, err
		}
		s.Scanned = moment(scanned)
		if db != 0 {
			s.DB = moment(db)
		}
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err == nil {
			s.Report, err = io.ReadAll(io.LimitReader(r, mostReport))
		}
		return s, err
	}, `SELECT image, ref, scanned, db, report FROM scans WHERE image = ?`, image)
	if err != nil {
		return Scan{}, fmt.Errorf("read the scan of %s: %w", image, err)
	}
	if len(list) == 0 {
		return Scan{}, tender.Errorf(tender.NotFound, "%s was not scanned yet", image).Hint("tender image scan")
	}
	return list[0], nil
}

// Scanned lists what is known of all images that were scanned, by digest or ID, without the reports.
func (tx *Tx) Scanned() (map[string]Scan, error) {
	list, err := collect(tx, func(scan func(...any) error) (s Scan, err error) {
		var scanned, db int64
		err = scan(&s.Image, &s.Reference, &scanned, &db, &s.Version, &s.Counts)
		s.Scanned = moment(scanned)
		if db != 0 {
			s.DB = moment(db)
		}
		return s, err
	}, `SELECT image, ref, scanned, db, version, counts FROM scans`)
	if err != nil {
		return nil, fmt.Errorf("read scans: %w", err)
	}
	out := make(map[string]Scan, len(list))
	for _, s := range list {
		out[s.Image] = s
	}
	return out, nil
}

// Unscanned lists tagged images and indexes of the registry that this version has not scanned,
// those pushed last first, at most n. Artifacts and signatures are none, nor what was fetched from other registries.
func (tx *Tx) Unscanned(version string, n int) ([]Tag, error) {
	list, err := collect(tx, func(scan func(...any) error) (t Tag, err error) {
		var pushed int64
		err = scan(&t.Repository, &t.Tag, &t.Digest, &pushed)
		t.Pushed = moment(pushed)
		return t, err
	}, `SELECT m.repository, min(t.tag), m.digest, max(m.pushed) AS at FROM manifests m
		JOIN tags t ON t.repository = m.repository AND t.digest = m.digest AND t.tag NOT GLOB 'sha256-*' AND t.tag NOT GLOB 'sha512-*' AND t.who <> 'cache'
		WHERE m.subject = '' AND m.who <> 'cache' AND (m.artifact IN ('application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json')
			OR m.media IN ('application/vnd.oci.image.index.v1+json', 'application/vnd.docker.distribution.manifest.list.v2+json') AND m.artifact = '')
		AND NOT EXISTS (SELECT 1 FROM scans s WHERE s.image = m.digest AND s.version = ?)
		GROUP BY m.digest ORDER BY at DESC, m.digest LIMIT ?`, version, n)
	if err != nil {
		return nil, fmt.Errorf("look for images that were not scanned: %w", err)
	}
	return list, nil
}
