package scan

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	tender "github.com/tenderhq/tender"
)

// The part of SARIF 2.1.0 that a scan needs.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool struct {
			Driver sarifDriver `json:"driver"`
		} `json:"tool"`
		Results    []sarifResult  `json:"results"`
		ColumnKind string         `json:"columnKind"`
		Properties map[string]any `json:"properties,omitempty"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifRule struct {
		ID         string         `json:"id"`
		Name       string         `json:"name"`
		Short      sarifText      `json:"shortDescription"`
		HelpURI    string         `json:"helpUri,omitempty"`
		Default    sarifDefault   `json:"defaultConfiguration"`
		Properties map[string]any `json:"properties"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifResult struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      sarifText         `json:"message"`
		Locations    []sarifLocation   `json:"locations"`
		Fingerprints map[string]string `json:"partialFingerprints"`
		Properties   map[string]any    `json:"properties,omitempty"`
	}
	sarifLocation struct {
		Physical struct {
			Artifact struct {
				URI string `json:"uri"`
			} `json:"artifactLocation"`
			Region struct {
				StartLine int `json:"startLine"`
			} `json:"region"`
		} `json:"physicalLocation"`
		Message sarifText `json:"message"`
	}
)

// WriteSARIF writes the findings as SARIF 2.1.0, as code hosts take them: a rule for each
// advisory, a result for each package it holds for, security-severity from 0.0 to 10.0.
func WriteSARIF(w io.Writer, r Report, version string) error {
	run := sarifRun{ColumnKind: "utf16CodeUnits", Results: []sarifResult{}, Properties: map[string]any{
		"image": r.Reference, "imageID": r.ImageID, "digest": r.Digest, "scanned": r.Scanned.UTC(),
	}}
	run.Tool.Driver = sarifDriver{Name: "Tender", Version: version, InformationURI: "https://github.com/tenderhq/tender", Rules: []sarifRule{}}
	index := map[string]int{}
	for _, f := range r.Findings {
		i, ok := index[f.ID]
		if !ok {
			i = len(run.Tool.Driver.Rules)
			index[f.ID] = i
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
				ID: f.ID, Name: sarifName(f.Kind), Short: sarifText{orID(f.Title, f.ID)}, HelpURI: f.URL,
				Default: sarifDefault{sarifLevel(f.Severity)},
				Properties: map[string]any{
					"security-severity": fmt.Sprintf("%.1f", scoreOf(f)), "precision": "high", "tags": []string{f.Kind, "security", f.Severity.String()},
				},
			})
		}
		res := sarifResult{
			RuleID: f.ID, RuleIndex: i, Level: sarifLevel(f.Severity), Message: sarifText{Sentence(f)},
			// The same finding of a later image of the same name is the same to who collects them.
			Fingerprints: map[string]string{"finding/v1": strings.Join([]string{f.ID, f.PURL, f.Package, f.Path}, "|")},
			Properties:   map[string]any{"severity": f.Severity.String()},
		}
		if f.Fixed != "" {
			res.Properties["fixed"] = f.Fixed
		}
		if step := r.StepOf(f.Layer); step != "" {
			res.Properties["layer"], res.Properties["step"] = f.Layer, step
		}
		var at sarifLocation
		at.Physical.Artifact.URI = uriPath(orID(f.Path, r.Reference))
		at.Physical.Region.StartLine = 1
		at.Message.Text = orID(f.Path, "the image") + " of " + r.Reference
		res.Locations = []sarifLocation{at}
		run.Results = append(run.Results, res)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(sarifLog{Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}

func orID(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func sarifName(kind string) string {
	switch kind {
	case tender.SecretLeft:
		return "SecretInLayer"
	case tender.Setup:
		return "ImageSetup"
	}
	return "VulnerablePackage"
}

func sarifLevel(s tender.Severity) string {
	switch s {
	case tender.Critical, tender.High:
		return "error"
	case tender.Medium, tender.UnknownSeverity:
		return "warning"
	}
	return "note"
}

// scoreOf is the CVSS score, or the middle of what the severity stands for.
func scoreOf(f tender.Finding) float64 {
	if f.Score > 0 {
		return f.Score
	}
	return map[tender.Severity]float64{tender.Critical: 9.5, tender.High: 8, tender.Medium: 5.5, tender.Low: 2, tender.Negligible: 0.1}[f.Severity]
}

// Sentence says a finding in one.
func Sentence(f tender.Finding) string {
	if f.Kind != tender.Vulnerability {
		return orID(f.Title, f.ID)
	}
	s := fmt.Sprintf("%s %s: %s", f.Package, f.Version, f.ID)
	if f.Title != "" {
		s += ", " + f.Title
	}
	if f.Fixed == "" {
		return s + " (no version without it)"
	}
	return s + " (fixed in " + f.Fixed + ")"
}

// StepOf is the step of the Dockerfile that made a layer; "" if there is none.
func (c Contents) StepOf(layer int) string {
	if layer < 0 || layer >= len(c.Layers) {
		return ""
	}
	return c.Layers[layer].Step
}

// uriPath makes a relative reference of a path or an image's name, in which nothing is
// taken for a scheme or a query.
func uriPath(p string) string {
	var b strings.Builder
	for i := range len(p) {
		switch c := p[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
