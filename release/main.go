// Command release writes what a release carries beside the binaries: man pages
// and the list of what is in a binary. build.sh calls it; it ships nothing itself.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/tenderhq/tender/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "man":
		day, err := made()
		if err != nil {
			return err
		}
		return cli.Manual(args[1], args[2], day)
	case len(args) == 3 && args[0] == "sbom":
		day, err := made()
		if err != nil {
			return err
		}
		return writeSBOM(os.Stdout, args[1], args[2], day)
	}
	return fmt.Errorf("usage: release man DIR VERSION | release sbom BINARY VERSION")
}

// made is the day of the release, SOURCE_DATE_EPOCH, so that the same commit
// gives the same bytes.
func made() (time.Time, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(n, 0).UTC(), nil
}
