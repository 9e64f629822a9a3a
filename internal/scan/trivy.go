package scan

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tenderhq/tender"
)

const reportMost = 256 << 20

// ReadFindings reads what another scanner has found: the JSON of trivy (image --format
// json) or of grype (-o json), known by its shape. The worst come first.
func ReadFindings(in io.Reader) ([]tender.Finding, error) {
	b, err := io.ReadAll(io.LimitReader(in, reportMost+1))
	if err != nil {
		return nil, err
	}
	if len(b) > reportMost {
		return nil, tender.Errorf(tender.Invalid, "the report is larger than %d bytes", reportMost)
	}
	var shape struct {
		SchemaVersion *int            `json:"SchemaVersion"`
		Matches       json.RawMessage `json:"matches"`
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		return nil, tender.Errorf(tender.Invalid, "read the report: %v", err).Hint("trivy image --format json, or grype -o json")
	}
	var found []tender.Finding
	switch {
	case shape.SchemaVersion != nil:
		found, err = readTrivy(b)
	case shape.Matches != nil:
		found, err = readGrype(b)
	default:
		return nil, tender.Errorf(tender.Invalid, "the report is neither trivy's JSON nor grype's").Hint("trivy image --format json, or grype -o json")
	}
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "read the report: %v", err)
	}
	slices.SortStableFunc(found, worstFirst)
	return found, nil
}

func readTrivy(b []byte) ([]tender.Finding, error) {
	var report struct {
		Metadata struct {
			DiffIDs []string
		}
		Results []struct {
			Target          string
			Type            string
			Vulnerabilities []struct {
				VulnerabilityID  string
				VendorIDs        []string
				PkgName          string
				PkgPath          string
				PkgIdentifier    struct{ PURL string }
				InstalledVersion string
				FixedVersion     string
				Layer            struct{ DiffID string }
				Severity         string
				Title            string
				PrimaryURL       string
				CVSS             map[string]struct{ V3Vector, V40Vector string }
				PublishedDate    *time.Time
				LastModifiedDate *time.Time
			}
			Secrets []struct {
				RuleID, Severity, Title string
				Layer                   struct{ DiffID string }
			}
		}
	}
	if err := json.Unmarshal(b, &report); err != nil {
		return nil, err
	}
	var found []tender.Finding
	for _, r := range report.Results {
		for _, v := range r.Vulnerabilities {
			f := tender.Finding{
				Kind: tender.Vulnerability, ID: v.VulnerabilityID, Aliases: v.VendorIDs, Severity: rated(v.Severity), Title: v.Title, URL: v.PrimaryURL,
				Package: v.PkgName, Version: v.InstalledVersion, Fixed: v.FixedVersion, Ecosystem: r.Type, PURL: v.PkgIdentifier.PURL,
				Path: v.PkgPath, Layer: slices.Index(report.Metadata.DiffIDs, v.Layer.DiffID),
			}
			var vectors []string
			for _, c := range v.CVSS {
				vectors = append(vectors, c.V3Vector, c.V40Vector)
			}
			slices.Sort(vectors) // a map has no order, and two may have the same score
			f.Vector, f.Score = worst(vectors)
			if v.PublishedDate != nil {
				f.Published = v.PublishedDate.UTC()
			}
			if v.LastModifiedDate != nil {
				f.Modified = v.LastModifiedDate.UTC()
			}
			found = append(found, f)
		}
		for _, s := range r.Secrets {
			found = append(found, tender.Finding{
				Kind: tender.SecretLeft, ID: "secret/" + s.RuleID, Severity: rated(s.Severity), Title: s.Title,
				Path: strings.TrimPrefix(r.Target, "/"), Layer: slices.Index(report.Metadata.DiffIDs, s.Layer.DiffID),
			})
		}
	}
	return found, nil
}

func readGrype(b []byte) ([]tender.Finding, error) {
	var report struct {
		Matches []struct {
			Vulnerability struct {
				ID, DataSource, Severity, Description string
				CVSS                                  []struct{ Vector string } `json:"cvss"`
				Fix                                   struct{ Versions []string }
			}
			RelatedVulnerabilities []struct{ ID string }
			Artifact               struct {
				Name, Version, Type, PURL string
				Locations                 []struct{ Path string }
				Upstreams                 []struct{ Name string }
			}
		}
	}
	if err := json.Unmarshal(b, &report); err != nil {
		return nil, err
	}
	var found []tender.Finding
	for _, m := range report.Matches {
		if m.Vulnerability.ID == "" {
			return nil, fmt.Errorf("a match of %q has no vulnerability", m.Artifact.Name)
		}
		f := tender.Finding{
			Kind: tender.Vulnerability, Severity: rated(m.Vulnerability.Severity), Title: title("", m.Vulnerability.Description), URL: m.Vulnerability.DataSource,
			Package: m.Artifact.Name, Version: m.Artifact.Version, Ecosystem: m.Artifact.Type, PURL: m.Artifact.PURL, Layer: -1,
		}
		ids := []string{m.Vulnerability.ID}
		for _, r := range m.RelatedVulnerabilities {
			ids = appendNew(ids, r.ID)
		}
		slices.SortStableFunc(ids, func(a, b string) int { return rank(a) - rank(b) })
		f.ID, f.Aliases = ids[0], ids[1:]
		if len(m.Vulnerability.Fix.Versions) > 0 {
			f.Fixed = m.Vulnerability.Fix.Versions[0]
		}
		if len(m.Artifact.Locations) > 0 {
			f.Path = strings.TrimPrefix(m.Artifact.Locations[0].Path, "/")
		}
		if len(m.Artifact.Upstreams) > 0 && m.Artifact.Upstreams[0].Name != m.Artifact.Name {
			f.Source = m.Artifact.Upstreams[0].Name
		}
		var vectors []string
		for _, c := range m.Vulnerability.CVSS {
			vectors = append(vectors, c.Vector)
		}
		f.Vector, f.Score = worst(vectors)
		found = append(found, f)
	}
	return found, nil
}
