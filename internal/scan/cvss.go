package scan

import (
	"strings"

	cvss30 "github.com/pandatix/go-cvss/30"
	cvss31 "github.com/pandatix/go-cvss/31"
	cvss40 "github.com/pandatix/go-cvss/40"

	"github.com/tenderhq/tender"
)

// Score computes the base score, 0 to 10, of a CVSS vector of version 3.0, 3.1 or 4.0,
// as FIRST's specifications have it. ok is false for anything else.
func Score(vector string) (score float64, ok bool) {
	vector = strings.TrimSuffix(strings.TrimSpace(vector), "/")
	switch {
	case strings.HasPrefix(vector, "CVSS:3.0/"):
		v, err := cvss30.ParseVector(vector)
		if err != nil {
			return 0, false
		}
		return v.BaseScore(), true
	case strings.HasPrefix(vector, "CVSS:3.1/"):
		v, err := cvss31.ParseVector(vector)
		if err != nil {
			return 0, false
		}
		return v.BaseScore(), true
	case strings.HasPrefix(vector, "CVSS:4.0/"):
		v, err := cvss40.ParseVector(baseOf4(vector))
		if err != nil {
			return 0, false
		}
		return v.Score(), true
	}
	return 0, false
}

// baseOf4 keeps the base metrics: in version 4 threat and environment change the one
// score there is, and who publishes an advisory does not know ours.
func baseOf4(vector string) string {
	kept := []string{"CVSS:4.0"}
	for _, m := range strings.Split(vector, "/")[1:] {
		switch name, _, _ := strings.Cut(m, ":"); name {
		case "AV", "AC", "AT", "PR", "UI", "VC", "VI", "VA", "SC", "SI", "SA":
			kept = append(kept, m)
		}
	}
	return strings.Join(kept, "/")
}

// SeverityOf turns a base score into the word of the specifications' scale.
func SeverityOf(score float64) tender.Severity {
	switch {
	case score >= 9:
		return tender.Critical
	case score >= 7:
		return tender.High
	case score >= 4:
		return tender.Medium
	case score > 0:
		return tender.Low
	}
	return tender.Negligible // 0.0 is "none"
}

// worst gives the highest score of several vectors; "" when none can be read.
func worst(vectors []string) (vector string, score float64) {
	for _, v := range vectors {
		if s, ok := Score(v); ok && (vector == "" || s > score) {
			vector, score = v, s
		}
	}
	return vector, score
}

// ratings are the words of distributions and databases.
var ratings = map[string]tender.Severity{
	"critical": tender.Critical,
	"high":     tender.High, "important": tender.High,
	"medium": tender.Medium, "moderate": tender.Medium,
	"low": tender.Low, "minor": tender.Low,
	"negligible": tender.Negligible, "unimportant": tender.Negligible, "none": tender.Negligible,
}

// rated reads such a word. Debian marks doubtful ones with stars.
func rated(word string) tender.Severity {
	return ratings[strings.ToLower(strings.TrimRight(strings.TrimSpace(word), "*"))]
}
