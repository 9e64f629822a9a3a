package compose

import (
	"errors"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
)

var updateWords = &word{about: "Which newer images are looked for, and whether the service moves to them by itself", keys: map[string]*word{
	"range":  {about: "Versions that are welcome, as npm writes them, such as ~1.4; default: the same major version", rule: versionRange},
	"auto":   {about: "true: it moves to them by an ordinary rollout; default false", kind: "boolean"},
	"window": {about: "When that may begin, such as Sat-Sun 02:00-05:00, in the time of the daemon's host; default: at any time", kind: "string", rule: window},
}}

func versionRange(v string) error {
	if _, err := tender.ParseRange(v); err != nil {
		return errors.New("want a range of versions such as ~1.4, ^1.4, 1.x or \">=1.4 <3\"")
	}
	return nil
}

func window(v string) error {
	if _, err := tender.ParseWindow(v); err != nil || v == "" {
		return errors.New("want days and hours such as Sat-Sun 02:00-05:00")
	}
	return nil
}

func (r *reader) update(m map[string]any) *tender.Update {
	return &tender.Update{Range: r.held(m, "range", versionRange), Auto: r.truth(m, "auto"), Window: r.held(m, "window", window)}
}

// updates finds what keeps a service from following newer images by itself.
func (r *references) updates(s types.ServiceConfig, at func(...string) []string) {
	m, _ := asMap(s.Extensions[extensionKey])["update"].(map[string]any)
	read := reader{path: extensionKey + ".update"}
	if !read.update(m).Auto {
		return
	}
	here := at(extensionKey, "update", "auto")
	switch {
	case s.Build != nil:
		r.add("", "x-tender.update.auto: the image is built here, and no registry has newer ones", here...)
	case strings.Contains(s.Image, "@"):
		r.add("write its tag alone", "x-tender.update.auto: the image is named by its digest, which never changes", here...)
	}
}
