package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra/doc"
)

// Manual writes one man page for each command into dir, as of a version and its
// day. The binary never calls it: a release does.
func Manual(dir, version string, day time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := newApp(Stdio{Version: version}).root()
	root.DisableAutoGenTag = true
	h := &doc.GenManHeader{Title: "TENDER", Section: "1", Source: "Tender " + version, Manual: "Tender", Date: &day}
	if err := doc.GenManTree(root, h, dir); err != nil {
		return fmt.Errorf("write man pages: %w", err)
	}
	return nil
}
