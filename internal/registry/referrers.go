package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"

	"github.com/tenderhq/tender/internal/store"
)

// referrersPage is how many descriptors an answer holds at most: with the largest
// annotations that a manifest may have, that is well under the 4 MiB of an index.
const referrersPage = 200

// referrers answers with what refers to a manifest: signatures, SBOMs, attestations. It is
// an empty index for a manifest that nothing refers to, or that is not there.
func (r *Registry) referrers(w http.ResponseWriter, req *http.Request, rt route) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		problem(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "referrers can only be read")
		return
	}
	if _, err := digest.Parse(rt.reference); err != nil {
		problem(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q: %v", rt.reference, err))
		return
	}
	q := req.URL.Query()
	artifact := q.Get("artifactType")
	var found []store.Manifest
	err := r.o.Store.View(req.Context(), func(tx *store.Tx) (err error) {
		found, err = tx.Referrers(rt.repository, rt.reference, artifact, q.Get("last"), referrersPage+1)
		return err
	})
	if err != nil {
		r.refuse(w, err)
		return
	}
	if len(found) > referrersPage {
		found = found[:referrersPage]
		next := url.Values{"last": {found[len(found)-1].Digest}}
		if artifact != "" {
			next.Set("artifactType", artifact)
		}
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/referrers/%s?%s>; rel="next"`, rt.repository, rt.reference, next.Encode()))
	}
	if artifact != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	list := []descriptor{}
	for _, m := range found {
		list = append(list, descriptor{MediaType: m.MediaType, Size: m.Size, Digest: m.Digest, Annotations: m.Notes, ArtifactType: m.Artifact})
	}
	w.Header().Set("Content-Type", ociIndex)
	_ = json.NewEncoder(w).Encode(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": list})
}
