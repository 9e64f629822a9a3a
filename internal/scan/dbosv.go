package scan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of one advisory: the largest known have some thousands of entries.
const (
	jsonMost = 8 << 20
	listMost = 50_000
	textMost = 240 // of a title
)

// list is a JSON array that stops at listMost elements, before they take memory.
type list[T any] []T

func (l *list[T]) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("is not a list")
	}
	for d.More() {
		if len(*l) == listMost {
			return fmt.Errorf("has more than %d elements", listMost)
		}
		var one T
		if err := d.Decode(&one); err != nil {
			return err
		}
		*l = append(*l, one)
	}
	return nil
}

// osvRecord is what is read of OSV's schema: https://ossf.github.io/osv-schema/
type osvRecord struct {
	ID        string       `json:"id"`
	Modified  time.Time    `json:"modified"`
	Published time.Time    `json:"published"`
	Withdrawn string       `json:"withdrawn"`
	Aliases   list[string] `json:"aliases"`
	Upstream  list[string] `json:"upstream"`
	Related   list[string] `json:"related"`
	Summary   string       `json:"summary"`
	Details   string       `json:"details"`
	Severity  list[osvSeverity]
	Affected  list[osvAffected] `json:"affected"`
	Database  osvRating         `json:"database_specific"`
}

type osvSeverity struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

type osvAffected struct {
	Package struct {
		Ecosystem string `json:"ecosystem"`
		Name      string `json:"name"`
	} `json:"package"`
	Severity  list[osvSeverity] `json:"severity"`
	Ranges    list[osvRange]    `json:"ranges"`
	Versions  list[string]      `json:"versions"`
	Ecosystem osvRating         `json:"ecosystem_specific"`
	Database  osvRating         `json:"database_specific"`
}

type osvRange struct {
	Type   string         `json:"type"`
	Events list[osvEvent] `json:"events"`
}

type osvEvent struct {
	Introduced   string `json:"introduced"`
	Fixed        string `json:"fixed"`
	LastAffected string `json:"last_affected"`
	Limit        string `json:"limit"`
}

// osvRating is what databases say in fields of their own, which may have any shape.
type osvRating struct {
	Severity string
	Urgency  string
	Last     string // GitHub's: "< 1.2.3", of advisories without a fix
}

func (r *osvRating) UnmarshalJSON(b []byte) error {
	var fields struct {
		Severity any `json:"severity"`
		Urgency  any `json:"urgency"`
		Last     any `json:"last_known_affected_version_range"`
	}
	if json.Unmarshal(b, &fields) != nil {
		return nil // not an object: nothing of ours
	}
	r.Severity, _ = fields.Severity.(string)
	r.Urgency, _ = fields.Urgency.(string)
	r.Last, _ = fields.Last.(string)
	return nil
}

// parsed is one advisory, by the names that it is about.
type parsed struct {
	id       string
	modified time.Time
	rows     []row // none: withdrawn, or of other ecosystems
}

// parseOSV reads one advisory of an ecosystem.
func parseOSV(b []byte, ecosystem string) (parsed, error) {
	if len(b) > jsonMost {
		return parsed{}, fmt.Errorf("larger than %d bytes", jsonMost)
	}
	var o osvRecord
	if err := json.Unmarshal(b, &o); err != nil {
		return parsed{}, err
	}
	if o.ID == "" || len(o.ID) > 200 || strings.ContainsAny(o.ID, "/\\\n") {
		return parsed{}, errors.New("has no id")
	}
	p := parsed{id: o.ID, modified: o.Modified.UTC()}
	if o.Withdrawn != "" {
		return p, nil
	}
	byName := map[string]*advisory{}
	var names []string
	for i := range o.Affected {
		f := &o.Affected[i]
		base, release, _ := strings.Cut(f.Package.Ecosystem, ":")
		if base != ecosystem || f.Package.Name == "" {
			continue
		}
		kept := f.keep(release)
		if len(kept.Versions) == 0 && len(kept.Spans) == 0 {
			continue
		}
		name := indexName(base, f.Package.Name)
		a := byName[name]
		if a == nil {
			a = o.keep()
			byName[name] = a
			names = append(names, name)
		}
		for _, v := range cvssOf(f.Severity) {
			a.Vectors = appendNew(a.Vectors, v)
		}
		a.Affected = append(a.Affected, kept)
	}
	for _, name := range names {
		p.rows = append(p.rows, row{name: name, id: o.ID, data: appendAdvisory(nil, byName[name])})
	}
	return p, nil
}

func (o *osvRecord) keep() *advisory {
	a := &advisory{
		ID: o.ID, Modified: o.Modified.UTC(), Published: o.Published.UTC(), Aliases: o.Aliases, Upstream: o.Upstream,
		Title: title(o.Summary, o.Details), Vectors: cvssOf(o.Severity), Rating: o.rating(),
	}
	// Before schema 1.7 distributions named their flaws as related.
	if len(a.Upstream) == 0 && isNotice(o.ID) {
		for _, id := range o.Related {
			if strings.HasPrefix(id, "CVE-") {
				a.Upstream = append(a.Upstream, id)
			}
		}
	}
	return a
}

// rating is the publisher's own word, where there is one: Ubuntu's priority, GitHub's
// severity, or the first word of what Red Hat and its kin write.
func (o *osvRecord) rating() string {
	for _, s := range o.Severity {
		if s.Type == "Ubuntu" {
			return s.Score
		}
	}
	if o.Database.Severity != "" {
		return o.Database.Severity
	}
	if word, _, ok := strings.Cut(o.Summary, ":"); ok && isNotice(o.ID) {
		if _, known := ratings[strings.ToLower(word)]; known {
			return word
		}
	}
	return o.Database.Urgency
}

func (f *osvAffected) keep(release string) affected {
	kept := affected{Release: release, Rating: f.Ecosystem.Urgency, Versions: f.Versions}
	for _, word := range []string{f.Ecosystem.Severity, f.Database.Urgency, f.Database.Severity} {
		if kept.Rating == "" {
			kept.Rating = word
		}
	}
	for _, s := range f.Severity {
		if s.Type == "Ubuntu" {
			kept.Rating = s.Score
		}
	}
	for _, r := range f.Ranges {
		if r.Type != "ECOSYSTEM" && r.Type != "SEMVER" {
			continue // GIT: commits say nothing of packages
		}
		s := span{Semver: r.Type == "SEMVER"}
		open := true
		for _, e := range r.Events {
			for _, one := range []event{{introduced, e.Introduced}, {fixed, e.Fixed}, {lastAffected, e.LastAffected}, {limit, e.Limit}} {
				if one.Version == "" || one.Kind == limit && one.Version == "*" {
					continue
				}
				s.Events = append(s.Events, one)
				open = open && one.Kind == introduced
			}
		}
		if len(s.Events) == 0 {
			continue
		}
		if open && len(f.Ranges) == 1 {
			if v, ok := strings.CutPrefix(f.Database.Last, "<="); ok {
				s.Events = append(s.Events, event{lastAffected, strings.TrimSpace(v)})
			} else if v, ok := strings.CutPrefix(f.Database.Last, "<"); ok {
				s.Events = append(s.Events, event{limit, strings.TrimSpace(v)})
			}
		}
		kept.Spans = append(kept.Spans, s)
	}
	return kept
}

func cvssOf(list []osvSeverity) []string {
	var vectors []string
	for _, s := range list {
		if strings.HasPrefix(s.Type, "CVSS_V") && s.Type != "CVSS_V2" {
			vectors = appendNew(vectors, s.Score)
		}
	}
	return vectors
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// title is the summary, or how the details begin.
func title(summary, details string) string {
	s := strings.TrimSpace(summary)
	if s == "" {
		s, _, _ = strings.Cut(strings.TrimSpace(details), "\n")
	}
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "")
	if len(s) <= textMost {
		return s
	}
	cut := strings.LastIndexByte(s[:textMost], ' ')
	if cut < textMost/2 {
		cut = textMost
	}
	return strings.ToValidUTF8(s[:cut], "") + "…"
}
