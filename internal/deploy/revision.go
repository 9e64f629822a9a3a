package deploy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

// revision names what makes an instance of s different from another: the
// essence of its spec, the image, contents of configs and versions of secrets.
// salt makes a new name although nothing changed.
func (l *Loop) revision(s tender.Service, image tender.ImageID, salt string) (string, error) {
	essence, err := l.o.Essence(s.Spec)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	id := image.Digest
	if id == "" {
		id = image.ID
	}
	part := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		fmt.Fprintf(h, "%d:%s\n", len(text), text)
	}
	part("%s", essence)
	part("image %s", id)
	for _, c := range s.Configs {
		part("config %s %s %s %d %d %o", c.Source, c.Target, c.SHA256, c.UID, c.GID, c.Mode)
	}
	for _, f := range s.Secrets {
		part("secret %s %t %s %d %d %d %o", f.Name, f.External, f.Target, f.Version, f.UID, f.GID, f.Mode)
	}
	if salt != "" {
		part("salt %s", salt)
	}
	return hex.EncodeToString(h.Sum(nil))[:10], nil
}

// same reports whether new is what was wanted before, so that it keeps the
// revision that it was once given.
func (l *Loop) same(old store.WantedService, s tender.Service, image tender.ImageID) bool {
	return old.Image.Same(image) && l.o.Same(old.Service.Spec, s.Spec) &&
		slices.Equal(old.Service.Secrets, s.Secrets) && slices.Equal(old.Service.Configs, s.Configs)
}

// maxDiff bounds the lines of a diff that are kept.
const maxDiff = 400

// diff shows what changed between two texts, one line each, with - and +. Lines
// that stayed are left out but for one around each change.
func diff(a, b string) string {
	if a == b {
		return ""
	}
	x, y := strings.Split(strings.TrimSuffix(a, "\n"), "\n"), strings.Split(strings.TrimSuffix(b, "\n"), "\n")
	if len(x)*len(y) > 4_000_000 {
		return fmt.Sprintf("- %d lines\n+ %d lines\n", len(x), len(y))
	}
	// The longest common subsequence, from the end.
	common := make([][]int, len(x)+1)
	for i := range common {
		common[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var lines []string
	for i, j := 0, 0; i < len(x) || j < len(y); {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			lines = append(lines, "  "+x[i])
			i, j = i+1, j+1
		case j >= len(y) || i < len(x) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, "- "+x[i])
			i++
		default:
			lines = append(lines, "+ "+y[j])
			j++
		}
	}
	var out []string
	for k, line := range lines {
		near := line[0] != ' ' || k > 0 && lines[k-1][0] != ' ' || k+1 < len(lines) && lines[k+1][0] != ' '
		if !near {
			continue
		}
		if len(out) == maxDiff {
			return strings.Join(append(out, "  …"), "\n") + "\n"
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n") + "\n"
}

// changes is the diff of two versions of a service, for people: spec, image,
// contents and versions, never a value.
func changes(old, now store.WantedService) string {
	text := func(w store.WantedService) string {
		var b strings.Builder
		b.Write(w.Service.Spec)
		if b.Len() > 0 && !strings.HasSuffix(b.String(), "\n") {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "image %s %s\n", w.Image.Reference, identity(w.Image))
		for _, c := range w.Service.Configs {
			fmt.Fprintf(&b, "config %s sha256:%.12s\n", c.Source, c.SHA256)
		}
		for _, f := range w.Service.Secrets {
			fmt.Fprintf(&b, "secret %s version %d\n", f.Name, f.Version)
		}
		return b.String()
	}
	return diff(text(old), text(now))
}

func identity(i tender.ImageID) string {
	id := i.Digest
	if id == "" {
		id = i.ID
	}
	if hash, ok := strings.CutPrefix(id, "sha256:"); ok && len(hash) > 12 {
		return "sha256:" + hash[:12]
	}
	return id
}

// sameGround reports whether two normal forms have the same networks and
// volumes, so that nothing has to be made. It compares the text of the two
// blocks, which stand at the left edge; where it is not sure it says no, and
// they are made again, which does no harm.
func sameGround(a, b []byte) bool {
	x, ok := ground(a)
	y, ok2 := ground(b)
	return bytes.Equal(a, b) || ok && ok2 && x == y
}

func ground(doc []byte) (blocks string, ok bool) {
	in := false
	for line := range strings.Lines(string(doc)) {
		if line != "" && !strings.ContainsAny(line[:1], " \t\n#-") {
			ok = ok || strings.HasPrefix(line, "services:")
			in = strings.HasPrefix(line, "networks:") || strings.HasPrefix(line, "volumes:")
		}
		if in {
			blocks += line
		}
	}
	return blocks, ok
}

func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:12]
}
