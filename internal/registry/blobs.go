package registry

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// sendBlob answers GET and HEAD of a blob that lies on the disk whole, as most that is asked
// for does: the kernel sends the file. The library reads it through buffers of its own, after
// a walk of its router for each. false: nothing was answered, and the library knows why.
func (r *Registry) sendBlob(w http.ResponseWriter, req *http.Request, rt route) bool {
	if r.o.Bucket != nil || rt.kind != "blobs" || req.Method != http.MethodGet && req.Method != http.MethodHead {
		return false
	}
	d, err := digest.Parse(rt.reference)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return false
	}
	// A blob is a repository's if there is a link to it.
	link, err := os.ReadFile(filepath.Join(r.o.Dir, filepath.FromSlash(tree), rt.repository, "_layers/sha256", d.Encoded(), "link"))
	if err != nil || strings.TrimSpace(string(link)) != rt.reference {
		return false
	}
	f, err := os.Open(filepath.Join(r.o.Dir, filepath.FromSlash(blobPath(rt.reference))))
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", rt.reference)
	h.Set("Etag", `"`+rt.reference+`"`)
	h.Set("Cache-Control", "max-age=31536000")
	http.ServeContent(w, req, "", time.Time{}, f) // the time of the file is that of its lease
	return true
}
