package scan

import (
	"compress/zlib"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

const maxAuditable = 16 << 20

// parseBinary reads what Go and, with cargo-auditable, Rust write into their programs.
func parseBinary(r *reading, _ *layer, name string, f *file, body io.ReaderAt, size int64) error {
	e, err := elf.NewFile(io.NewSectionReader(body, 0, size))
	if err != nil {
		return errNothing // a core dump, firmware, a processor of its own
	}
	if s := e.Section(".dep-v0"); s != nil {
		if err := parseAuditable(r, name, f, s); err != nil {
			return fmt.Errorf("its list of crates: %w", err)
		}
	}
	if e.Section(".go.buildinfo") == nil && len(e.Sections) > 0 {
		return nil
	}
	info, err := buildinfo.Read(io.NewSectionReader(body, 0, size))
	if err != nil {
		return errNothing
	}
	if v, ok := strings.CutPrefix(info.GoVersion, "go"); ok { // "go1.24.1 X:nocoverageredesign", "devel …"
		v, _, _ = strings.Cut(v, " ")
		r.found(f, name, Package{Name: "stdlib", Version: v, Type: "golang"})
	}
	if info.Main.Path != "" {
		r.found(f, name, Package{Name: info.Main.Path, Version: info.Main.Version, Type: "golang"})
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			if d.Replace.Version == "" { // a folder: nobody knows what was in it
				continue
			}
			d = d.Replace
		}
		r.found(f, name, Package{Name: d.Path, Version: d.Version, Type: "golang"})
	}
	return nil
}

// parseAuditable reads what cargo-auditable leaves in a program: packed JSON.
// https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md
func parseAuditable(r *reading, name string, f *file, s *elf.Section) error {
	z, err := zlib.NewReader(s.Open())
	if err != nil {
		return err
	}
	var list struct {
		Packages []struct {
			Name, Version, Source, Kind string
			Root                        bool
		}
	}
	if err := json.NewDecoder(io.LimitReader(z, maxAuditable)).Decode(&list); err != nil {
		return err
	}
	for _, p := range list.Packages {
		if p.Kind == "build" || p.Source == "local" && !p.Root {
			continue
		}
		r.found(f, name, Package{Name: p.Name, Version: p.Version, Type: "cargo"})
	}
	return nil
}
