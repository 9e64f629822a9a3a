package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/scan"
	"github.com/tenderhq/tender/internal/store"
)

const (
	// advisoriesOld is how old advisories may be before there is a warning.
	advisoriesOld = 7 * 24 * time.Hour
	// matchedFor is how long a report is as good as a new one while the advisories stay the same.
	matchedFor = 24 * time.Hour
)

// scans keeps what is known of images: what is in them is read once, and asked again
// with newer advisories.
type scans struct {
	config     Advisories
	version    string
	log        *slog.Logger
	store      *store.Store
	engine     engine.Images
	db         *scan.DB
	info       func(context.Context) (engine.Info, error)
	registries *registry.Remote // nil: no registry is reached without a network
	reading    chan struct{}    // one image at a time
	changed    chan struct{}    // advisories, or reports
	pushed     chan struct{}    // something came to our own registry, or there are new advisories

	mu    sync.Mutex
	found []deployed // for the metric
}

func newScans(b *backend, dir string, log *slog.Logger) *scans {
	return &scans{
		config: b.config.Advisories, version: b.version, log: log, store: b.store, engine: b.engine, db: scan.OpenDB(dir),
		info:       func(ctx context.Context) (engine.Info, error) { return b.engine.Info(ctx) },
		registries: b.remote, reading: make(chan struct{}, 1), changed: make(chan struct{}, 1), pushed: make(chan struct{}, 1),
	}
}

// keptReport is a report as the store has it. What another version has read, it may not
// have understood.
type keptReport struct {
	Version string
	Report  scan.Report
}

// keyOf is under what the report on an image lies.
func keyOf(id tender.ImageID) string {
	if id.Digest != "" {
		return id.Digest
	}
	return id.ID
}

// kept is the newest report on an image; NotFound if there is none.
func (s *scans) kept(ctx context.Context, key string) (scan.Report, error) {
	var raw store.Scan
	if err := s.store.View(ctx, func(tx *store.Tx) (err error) { raw, err = tx.Scan(key); return err }); err != nil {
		return scan.Report{}, err
	}
	var k keptReport
	if err := json.Unmarshal(raw.Report, &k); err != nil || k.Version != s.version {
		return scan.Report{}, tender.Errorf(tender.NotFound, "%s was not scanned by this version yet", raw.Reference)
	}
	return k.Report, nil
}

func (s *scans) keep(ctx context.Context, key string, r scan.Report) error {
	raw, err := json.Marshal(keptReport{s.version, r})
	if err != nil {
		return err
	}
	counts, err := json.Marshal(tally(r))
	if err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx *store.Tx) error {
		return tx.PutScan(store.Scan{
			Image: key, Reference: r.Reference, Scanned: r.Scanned, DB: r.DB.Updated, Version: s.version, Counts: string(counts), Report: raw,
		})
	})
}

// fresh asks the advisories again, where they are newer than the report or a day has gone.
func (s *scans) fresh(ctx context.Context, key string, r scan.Report, now time.Time) (scan.Report, error) {
	age, err := s.db.Age()
	if err == nil && age.Updated.Equal(r.DB.Updated) && age.Advisories == r.DB.Advisories && now.Sub(r.Scanned) < matchedFor {
		return r, nil
	}
	r = s.db.Report(r.Contents, now)
	return r, s.keep(ctx, key, r)
}

// report is the one on an image of the engine; one that was never read is read now.
func (s *scans) report(ctx context.Context, id tender.ImageID, tell func(api.Event)) (scan.Report, error) {
	key := keyOf(id)
	r, err := s.kept(ctx, key)
	if tender.KindOf(err) == tender.NotFound {
		r.Contents, err = s.read(ctx, id, tell)
	}
	if err != nil {
		return r, err
	}
	return s.fresh(ctx, key, r, time.Now())
}

// read streams an image out of the engine.
func (s *scans) read(ctx context.Context, id tender.ImageID, tell func(api.Event)) (scan.Contents, error) {
	d, err := s.engine.Describe(ctx, id.ID)
	if err != nil {
		return scan.Contents{}, err
	}
	if err := s.turn(ctx); err != nil {
		return scan.Contents{}, err
	}
	defer func() { <-s.reading }()
	// By its ID: a name may be another image's by now.
	stream, err := s.engine.Save(ctx, []string{id.ID})
	if err != nil {
		return scan.Contents{}, err
	}
	defer stream.Close() //nolint:errcheck // what was read of it counts
	return scan.Read(ctx, scan.Source{Stream: telling(stream, id.Reference, d.Size, tell), Reference: id.Reference, Digest: id.Digest, Platform: d.Platform}, scan.Limits{})
}

// turn waits until no other image is read.
func (s *scans) turn(ctx context.Context) error {
	select {
	case s.reading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// remote reads an image out of its registry, unless it is known by its digest.
func (s *scans) remote(ctx context.Context, ref, auth string, tell func(api.Event)) (scan.Report, error) {
	if s.registries != nil {
		if own, err := s.registries.Parse(ctx, ref); err == nil && own.Host == "" {
			return s.own(ctx, own, tell)
		}
	}
	img, err := scan.Remote(ctx, ref, auth, "", registry.Guard)
	if err != nil {
		return scan.Report{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return scan.Report{}, tender.Errorf(tender.Unavailable, "read image %s: %w", ref, err).Hint("try again")
	}
	r, err := s.kept(ctx, digest.String())
	if tender.KindOf(err) == tender.NotFound {
		if err := s.turn(ctx); err != nil {
			return r, err
		}
		defer func() { <-s.reading }()
		tell(api.Event{Kind: api.KindPull, Text: ref + ": reading it from its registry"})
		r.Contents, err = scan.Read(ctx, scan.Source{Image: img, Reference: ref}, scan.Limits{})
	}
	if err != nil {
		return r, err
	}
	return s.fresh(ctx, digest.String(), r, time.Now())
}

// find is the report on what a reference names: an image of the engine, else of a registry.
func (s *scans) find(ctx context.Context, ref, auth string, tell func(api.Event)) (scan.Report, tender.ImageID, error) {
	id, err := s.engine.Resolve(ctx, ref)
	if tender.KindOf(err) == tender.NotFound {
		r, err := s.remote(ctx, ref, auth, tell)
		return r, tender.ImageID{Reference: ref, ID: r.ImageID, Digest: r.Digest}, err
	}
	if err != nil {
		return scan.Report{}, id, err
	}
	r, err := s.report(ctx, id, tell)
	r.Reference = ref // it may have been read under another
	return r, id, err
}

// scanned is what the gate asks: nil where there is no report.
func (s *scans) scanned(ctx context.Context, id tender.ImageID) (*policy.Scan, error) {
	key := keyOf(id)
	r, err := s.kept(ctx, key)
	if tender.KindOf(err) == tender.NotFound {
		return nil, nil
	}
	if err == nil {
		r, err = s.fresh(ctx, key, r, time.Now())
	}
	if err != nil {
		return nil, err
	}
	return policyScan(r), nil
}

func policyScan(r scan.Report) *policy.Scan {
	out := &policy.Scan{Findings: r.Findings, Taken: r.Scanned, Gaps: r.Gaps}
	for _, l := range r.Layers {
		out.Steps = append(out.Steps, l.Step)
	}
	return out
}

// scanFirst reads an image that a gate asks about, if nobody has read it.
func (b *backend) scanFirst(ctx context.Context, id tender.ImageID, tell func(api.Event)) error {
	if b.scans == nil {
		return nil
	}
	if tell == nil {
		tell = func(api.Event) {}
	}
	if _, err := b.scans.report(ctx, id, tell); err != nil && tender.KindOf(err) != tender.NotFound {
		return fmt.Errorf("scan %s: %w", id.Reference, err)
	}
	return nil
}

// Scan looks into an image.
func (b *backend) Scan(ctx context.Context, who api.Person, q api.ScanRequest, archive io.Reader, report func(api.Event)) (out api.Scan, err error) {
	report = stamped(report, "")
	var gate policy.Gate
	if q.Deny != "" {
		if gate.Deny, err = tender.ParseSeverity(q.Deny); err != nil {
			return out, err
		}
		gate.Fixable = q.Fixable
	}
	var theirs []tender.Finding
	if q.With != "" {
		if theirs, err = scan.ReadFindings(strings.NewReader(q.With)); err != nil {
			return out, err
		}
	}
	var r scan.Report
	var id tender.ImageID
	if archive != nil {
		if r, err = b.scans.archive(ctx, archive, q.Reference, report); err == nil {
			id = tender.ImageID{Reference: r.Reference, ID: r.ImageID, Digest: r.Digest}
		}
	} else {
		r, id, err = b.findScan(ctx, q.Reference, q.Auth, report)
	}
	if err != nil {
		return out, err
	}
	changes, err := b.changes(ctx, r, id, q, report)
	if err != nil {
		return out, err
	}
	if q.With != "" {
		o := scan.Second(r.Findings, theirs)
		r.Add(o.Others)
		out.Opinion = &api.ScanOpinion{Both: o.Both, Others: len(o.Others), Ours: o.Ours}
		theirs = o.Others
	}
	now := time.Now().UTC()
	var waivers []tender.Waiver
	if err := b.store.View(ctx, func(tx *store.Tx) (err error) { waivers, err = tx.Waivers(); return err }); err != nil {
		return out, err
	}
	wireScan(&out, r, theirs, waivers, now)
	out.Changes = changes
	if gate.Deny != 0 {
		all := policy.Check(policy.Input{
			Now: now, Gates: []policy.Gate{gate}, Waivers: waivers,
			Services: []policy.Service{{Image: policy.Image{Reference: r.Reference, Digest: r.Digest, Created: r.Created, Labels: r.Labels, Scan: policyScan(r)}}},
		})
		out.Denied, out.Verdicts = policy.Denied(all), wireVerdicts(all)
	}
	if q.Document != "" {
		write := map[string]func(io.Writer, scan.Report, string) error{"sarif": scan.WriteSARIF, "cyclonedx": scan.WriteCycloneDX, "spdx": scan.WriteSPDX, "html": scan.WriteHTML}[q.Document]
		if write == nil {
			return out, tender.Errorf(tender.Invalid, "there is no format %q", q.Document)
		}
		var doc bytes.Buffer
		if err := write(&doc, r, b.version); err != nil {
			return out, fmt.Errorf("write %s: %w", q.Document, err)
		}
		out.Document = doc.String()
	}
	return out, nil
}

func (b *backend) findScan(ctx context.Context, ref, auth string, report func(api.Event)) (scan.Report, tender.ImageID, error) {
	auth, err := b.auth(ctx, map[string]string{registryOf(ref): auth}, ref)
	if err != nil {
		return scan.Report{}, tender.ImageID{}, err
	}
	return b.scans.find(ctx, ref, auth, report)
}

// archive reads one that the asker sends. It is not kept: the gate asks about what the engine has.
func (s *scans) archive(ctx context.Context, from io.Reader, ref string, tell func(api.Event)) (scan.Report, error) {
	if err := s.turn(ctx); err != nil {
		return scan.Report{}, err
	}
	defer func() { <-s.reading }()
	tell(api.Event{Kind: api.KindPull, Text: "reading the archive"})
	c, err := scan.Read(ctx, scan.Source{Stream: from, Reference: ref}, scan.Limits{})
	if err != nil {
		return scan.Report{}, err
	}
	return s.db.Report(c, time.Now()), nil
}

// changes compares with the image that was named, else with those that run from the same repository.
func (b *backend) changes(ctx context.Context, r scan.Report, id tender.ImageID, q api.ScanRequest, report func(api.Event)) ([]api.ScanChange, error) {
	change := func(old scan.Report, against string, services []string) api.ScanChange {
		c := scan.Compare(old.Findings, r.Findings)
		out := api.ScanChange{Against: against, Services: services, Text: c.String()}
		for _, f := range c.New {
			out.New = append(out.New, f.ID)
		}
		for _, f := range c.Gone {
			out.Gone = append(out.Gone, f.ID)
		}
		return out
	}
	if q.Against != "" {
		old, _, err := b.findScan(ctx, q.Against, q.AgainstAuth, report)
		if err != nil {
			return nil, fmt.Errorf("compare with %s: %w", q.Against, err)
		}
		return []api.ScanChange{change(old, q.Against, nil)}, nil
	}
	repository, err := policy.Repository(r.Reference)
	if err != nil {
		return nil, nil // of an archive: it has no name
	}
	var out []api.ScanChange
	all, err := b.scans.heads(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		name, err := policy.Repository(d.image.Reference)
		if err != nil || name != repository || d.image.ID == id.ID || keyOf(d.image) == keyOf(id) {
			continue
		}
		label := d.project + "/" + d.service
		if at := slices.IndexFunc(out, func(c api.ScanChange) bool { return c.Against == d.image.Reference }); at >= 0 {
			out[at].Services = append(out[at].Services, label)
			continue
		}
		old, err := b.scans.report(ctx, d.image, report)
		if tender.KindOf(err) == tender.NotFound {
			continue // it is not here any more
		}
		if err != nil {
			return nil, fmt.Errorf("compare with what %s runs: %w", label, err)
		}
		out = append(out, change(old, d.image.Reference, []string{label}))
	}
	return out, nil
}

func wireScan(out *api.Scan, r scan.Report, others []tender.Finding, waivers []tender.Waiver, now time.Time) {
	out.Reference, out.Digest, out.ImageID, out.Platform, out.Created = r.Reference, r.Digest, r.ImageID, r.Platform, r.Created
	out.Base, out.Packages, out.Layers, out.Scanned = r.Distro.Name, len(r.Packages), len(r.Layers), r.Scanned
	if out.Base == "" && r.Distro.ID != "" {
		out.Base = strings.TrimSpace(r.Distro.ID + " " + r.Distro.Version)
	}
	out.Advisories = api.Advisories{Updated: r.DB.Updated, Newest: r.DB.Newest, Count: r.DB.Advisories, Ecosystems: r.DB.Ecosystems, Stale: r.DB.Stale(now, advisoriesOld)}
	if out.Advisories.Stale != "" {
		out.Warnings = append(out.Warnings, out.Advisories.Stale)
	}
	if r.DB.Advisories > 0 {
		out.Warnings = append(out.Warnings, r.Gaps...)
	}
	for _, c := range r.Cut {
		out.Warnings = append(out.Warnings, "not looked at: "+c)
	}
	out.Findings = []api.ScanFinding{}
	for _, f := range r.Findings {
		w := api.ScanFinding{
			Severity: f.Severity.String(), Kind: f.Kind, ID: f.ID, Aliases: f.Aliases, Score: f.Score, Vector: f.Vector, Title: f.Title, URL: f.URL,
			Package: f.Package, Source: f.Source, Version: f.Version, Fixed: f.Fixed, PURL: f.PURL, Path: f.Path, Layer: f.Layer, Step: r.StepOf(f.Layer), Published: f.Published,
			Other: slices.ContainsFunc(others, func(o tender.Finding) bool {
				return o.ID == f.ID && o.Package == f.Package && o.Path == f.Path && o.Version == f.Version
			}),
		}
		if held := waived(waivers, f, deployed{image: tender.ImageID{Reference: r.Reference}}, now); held != nil {
			waiver := wireWaiver(*held)
			w.Waiver = &waiver
		}
		out.Findings = append(out.Findings, w)
	}
}

// waived is the waiver under which a finding of an image passes; nil: none.
func waived(all []tender.Waiver, f tender.Finding, d deployed, now time.Time) *tender.Waiver {
	for i := range all {
		w := &all[i]
		if !w.Until.After(now) || !slices.ContainsFunc(append([]string{f.ID}, f.Aliases...), func(id string) bool { return strings.EqualFold(id, w.Finding) }) {
			continue
		}
		repository, err := policy.Repository(d.image.Reference)
		switch {
		case w.Scope == "", err == nil && w.Scope == repository, d.project != "" && (w.Scope == d.project || w.Scope == d.project+"/"+d.service):
			return w
		}
	}
	return nil
}

// telling says how much of a stream has come.
func telling(from io.Reader, ref string, size int64, tell func(api.Event)) io.Reader {
	return &toldReader{Reader: from, tell: func(n int64) {
		tell(api.Event{Kind: api.KindPull, Text: fmt.Sprintf("%s: reading %s", ref, units.HumanSize(float64(size))), Current: min(n, size), Total: size})
	}}
}

type toldReader struct {
	io.Reader
	tell    func(int64)
	n, said int64
}

func (r *toldReader) Read(p []byte) (int, error) {
	if r.n == 0 || r.n-r.said > 8<<20 {
		r.said = r.n
		r.tell(r.n)
	}
	n, err := r.Reader.Read(p)
	r.n += int64(n)
	return n, err
}

// gone says that there is no such image or report any more, or nobody who asks.
func gone(err error) bool {
	return tender.KindOf(err) == tender.NotFound || errors.Is(err, context.Canceled)
}
