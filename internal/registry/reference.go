package registry

import "strings"

// Reference names an image, in our own registry or in another.
type Reference struct {
	Host       string // "": our own registry
	Repository string
	Tag        string // "": only Digest names it
	Digest     string // sha256:…; "": Tag names it
}

// String writes it as people type it.
func (r Reference) String() string {
	s := r.Repository
	if r.Host != "" {
		s = r.Host + "/" + s
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// At is the same repository with another tag or digest.
func (r Reference) At(id string) Reference {
	r.Tag, r.Digest = "", ""
	if strings.Contains(id, ":") {
		r.Digest = id
	} else {
		r.Tag = id
	}
	return r
}
