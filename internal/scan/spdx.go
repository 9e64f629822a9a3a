package scan

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

const noAssertion = "NOASSERTION"

// WriteSPDX writes what is in the image as SPDX 2.3 in JSON. The same report gives the same bytes.
func WriteSPDX(w io.Writer, r Report, version string) error {
	tool := "tender"
	if version != "" {
		tool += "-" + version
	}
	doc := v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: orID(r.Reference, r.ImageID),
		// No document lies there: the specification wants a name that nobody else gives.
		DocumentNamespace: "https://github.com/tenderhq/tender/spdx/" + uuidOf(r.ImageID+r.Read.UTC().Format(time.RFC3339)),
		CreationInfo:      &v2_3.CreationInfo{Created: r.Read.UTC().Format(time.RFC3339), Creators: []common.Creator{{CreatorType: "Tool", Creator: tool}}},
	}
	const image = common.ElementID("Image")
	doc.Packages = append(doc.Packages, &v2_3.Package{
		PackageSPDXIdentifier: image, PackageName: nameOf(r.Reference), PackageVersion: orID(r.Digest, r.ImageID), PackageDownloadLocation: noAssertion,
		PrimaryPackagePurpose: "CONTAINER", PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: noAssertion, PackageCopyrightText: noAssertion,
		PackageExternalReferences: purlReference(imagePURL(r.Contents)), IsFilesAnalyzedTagPresent: true,
	})
	link := func(from, to common.ElementID, kind string) {
		doc.Relationships = append(doc.Relationships, &v2_3.Relationship{
			RefA: common.MakeDocElementID("", string(from)), RefB: common.MakeDocElementID("", string(to)), Relationship: kind,
		})
	}
	link("DOCUMENT", image, common.TypeRelationshipDescribe)
	if d := r.Distro; d.ID != "" {
		doc.Packages = append(doc.Packages, &v2_3.Package{
			PackageSPDXIdentifier: "OperatingSystem", PackageName: d.ID, PackageVersion: d.Version, PackageSummary: d.Name, PackageDownloadLocation: noAssertion,
			PrimaryPackagePurpose: "OPERATING_SYSTEM", PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: noAssertion, PackageCopyrightText: noAssertion, IsFilesAnalyzedTagPresent: true,
		})
		link(image, "OperatingSystem", common.TypeRelationshipContains)
	}
	texts := map[string]string{} // a licence's own words to the name that they get
	for i, p := range r.Packages {
		id := common.ElementID(fmt.Sprintf("Package-%s-%d", p.Type, i+1))
		pkg := &v2_3.Package{
			PackageSPDXIdentifier: id, PackageName: p.Name, PackageVersion: p.Version, PackageDownloadLocation: noAssertion, PackageSourceInfo: "found in " + p.Path,
			PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: noAssertion, PackageCopyrightText: noAssertion, PrimaryPackagePurpose: "LIBRARY",
			PackageExternalReferences: purlReference(p.PURL), IsFilesAnalyzedTagPresent: true,
		}
		if step := r.StepOf(p.Layer); step != "" {
			pkg.PackageComment = fmt.Sprintf("layer %d: %s", p.Layer, step)
		}
		var declared []string
		for _, l := range p.Licenses {
			if known[l] {
				declared = append(declared, l)
				continue
			}
			name, ok := texts[l]
			if !ok {
				name = fmt.Sprintf("LicenseRef-%d", len(texts)+1)
				texts[l] = name
				doc.OtherLicenses = append(doc.OtherLicenses, &v2_3.OtherLicense{LicenseIdentifier: name, ExtractedText: l, LicenseName: l})
			}
			declared = append(declared, name)
		}
		if len(declared) > 0 {
			pkg.PackageLicenseDeclared = strings.Join(declared, " AND ")
		}
		doc.Packages = append(doc.Packages, pkg)
		link(image, id, common.TypeRelationshipContains)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return fmt.Errorf("write SPDX: %w", err)
	}
	return nil
}

func purlReference(purl string) []*v2_3.PackageExternalReference {
	if purl == "" {
		return nil
	}
	return []*v2_3.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl}}
}

// nameOf is the repository of a reference.
func nameOf(reference string) string {
	name, _, _ := strings.Cut(reference, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return orID(name, "image")
}

// imagePURL is the package URL of an image, as purl's type oci has it; "" without a digest.
func imagePURL(c Contents) string {
	if c.Digest == "" {
		return ""
	}
	repository := nameOf(c.Reference)
	last := repository[strings.LastIndexByte(repository, '/')+1:]
	q := url.Values{"repository_url": {repository}}
	if _, arch, ok := strings.Cut(c.Platform, "/"); ok {
		q.Set("arch", arch)
	}
	return "pkg:oci/" + url.PathEscape(strings.ToLower(last)) + "@" + url.QueryEscape(c.Digest) + "?" + q.Encode()
}

// uuidOf is a name-based UUID (version 8, of SHA-256), so that the same says the same.
func uuidOf(name string) string {
	h := sha256.Sum256([]byte(name))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
