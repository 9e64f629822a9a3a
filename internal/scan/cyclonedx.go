package scan

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	tender "github.com/tenderhq/tender"
)

// WriteCycloneDX writes what is in the image, and what was found, as CycloneDX 1.6 in JSON.
// The same report gives the same bytes.
func WriteCycloneDX(w io.Writer, r Report, version string) error {
	bom := cdx.NewBOM()
	bom.SerialNumber = "urn:uuid:" + uuidOf(r.ImageID+r.Read.UTC().Format(time.RFC3339))
	image := cdx.Component{
		BOMRef: "image", Type: cdx.ComponentTypeContainer, Name: nameOf(r.Reference), Version: orID(r.Digest, r.ImageID), PackageURL: imagePURL(r.Contents),
		Properties: properties("imageID", r.ImageID, "platform", r.Platform, "reference", r.Reference),
	}
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.Read.UTC().Format(time.RFC3339),
		Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "tender", Version: version}}},
		Component: &image,
	}
	components, inside := []cdx.Component{}, []string{}
	if d := r.Distro; d.ID != "" {
		c := cdx.Component{BOMRef: "os", Type: cdx.ComponentTypeOS, Name: d.ID, Version: d.Version, Description: d.Name}
		components, inside = append(components, c), append(inside, c.BOMRef)
	}
	refs := map[string]string{} // where findings point: purl and path to the reference
	seen := map[string]int{}
	for _, p := range r.Packages {
		ref := orID(p.PURL, p.Type+":"+p.Name+"@"+p.Version)
		if seen[ref]++; seen[ref] > 1 {
			ref = fmt.Sprintf("%s#%d", ref, seen[ref])
		}
		refs[p.PURL+"\n"+p.Path] = ref
		c := cdx.Component{
			BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: p.PURL,
			Properties: properties("path", p.Path, "source", p.Source, "sourceVersion", p.SourceVer, "ecosystem", p.Ecosystem, "layer", layerText(p.Layer), "step", r.StepOf(p.Layer)),
		}
		if len(p.Licenses) > 0 {
			var ls cdx.Licenses
			for _, l := range p.Licenses {
				if known[l] {
					ls = append(ls, cdx.LicenseChoice{License: &cdx.License{ID: l}})
				} else {
					ls = append(ls, cdx.LicenseChoice{License: &cdx.License{Name: l}})
				}
			}
			c.Licenses = &ls
		}
		components, inside = append(components, c), append(inside, ref)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: image.BOMRef, Dependencies: &inside}}
	if vs := vulnerabilities(r, refs); len(vs) > 0 {
		bom.Vulnerabilities = &vs
	}
	e := cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	if err := e.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return fmt.Errorf("write CycloneDX: %w", err)
	}
	return nil
}

// vulnerabilities are one for each advisory, with all that it holds for.
func vulnerabilities(r Report, refs map[string]string) []cdx.Vulnerability {
	var out []cdx.Vulnerability
	index := map[string]int{}
	for _, f := range r.Findings {
		if f.Kind != tender.Vulnerability {
			continue
		}
		i, ok := index[f.ID]
		if !ok {
			i = len(out)
			index[f.ID] = i
			rating := cdx.VulnerabilityRating{Severity: cdxSeverity(f.Severity), Vector: f.Vector}
			if f.Score > 0 {
				score := f.Score
				rating.Score = &score
			}
			switch {
			case strings.HasPrefix(f.Vector, "CVSS:4"):
				rating.Method = cdx.ScoringMethodCVSSv4
			case strings.HasPrefix(f.Vector, "CVSS:3.1"):
				rating.Method = cdx.ScoringMethodCVSSv31
			case strings.HasPrefix(f.Vector, "CVSS:3"):
				rating.Method = cdx.ScoringMethodCVSSv3
			}
			v := cdx.Vulnerability{
				BOMRef: "vulnerability:" + f.ID, ID: f.ID, Description: f.Title, Ratings: &[]cdx.VulnerabilityRating{rating},
				Source: &cdx.Source{Name: "OSV", URL: f.URL}, Affects: &[]cdx.Affects{}, Published: day(f.Published), Updated: day(f.Modified),
			}
			if f.Fixed != "" {
				v.Recommendation = "Upgrade " + f.Package + " to " + f.Fixed
			}
			var also []cdx.VulnerabilityReference
			for _, a := range f.Aliases {
				also = append(also, cdx.VulnerabilityReference{ID: a, Source: &cdx.Source{Name: "OSV"}})
			}
			if len(also) > 0 {
				v.References = &also
			}
			out = append(out, v)
		}
		if ref, ok := refs[f.PURL+"\n"+f.Path]; ok {
			has := func(a cdx.Affects) bool { return a.Ref == ref }
			if !slices.ContainsFunc(*out[i].Affects, has) {
				*out[i].Affects = append(*out[i].Affects, cdx.Affects{Ref: ref, Range: &[]cdx.AffectedVersions{{Version: f.Version, Status: cdx.VulnerabilityStatusAffected}}})
			}
		}
	}
	for _, v := range out {
		slices.SortFunc(*v.Affects, func(a, b cdx.Affects) int { return cmp.Compare(a.Ref, b.Ref) })
	}
	return out
}

func cdxSeverity(s tender.Severity) cdx.Severity {
	switch s {
	case tender.Critical:
		return cdx.SeverityCritical
	case tender.High:
		return cdx.SeverityHigh
	case tender.Medium:
		return cdx.SeverityMedium
	case tender.Low:
		return cdx.SeverityLow
	case tender.Negligible:
		return cdx.SeverityInfo
	}
	return cdx.SeverityUnknown
}

// properties are pairs of a name and a value, without the empty ones.
func properties(pairs ...string) *[]cdx.Property {
	var out []cdx.Property
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			out = append(out, cdx.Property{Name: "tender:" + pairs[i], Value: pairs[i+1]})
		}
	}
	if out == nil {
		return nil
	}
	return &out
}

func layerText(n int) string {
	if n < 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
