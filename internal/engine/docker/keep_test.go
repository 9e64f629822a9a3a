package docker

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	tender "github.com/tenderhq/tender"
)

// What keeps an image that Docker Compose has built was taken for an instance of its project, by the labels of the image.
func TestWhatKeepsAnImageIsNoInstance(t *testing.T) {
	var made struct{ Labels map[string]string }
	there := "[]"
	e := scripted(t, func(r *http.Request) (int, string) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/images/sha256:abc/json"):
			return http.StatusOK, `{"Id": "sha256:abc", "Config": {"Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "mine": "x"}}}`
		case strings.HasSuffix(r.URL.Path, "/containers/create"):
			if err := json.NewDecoder(r.Body).Decode(&made); err != nil {
				t.Error(err)
			}
			return http.StatusCreated, `{"Id": "k"}`
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			return http.StatusOK, there
		case strings.HasSuffix(r.URL.Path, "/networks"):
			return http.StatusOK, "[]"
		}
		return http.StatusOK, "{}"
	})
	if err := e.Keep(t.Context(), "shop", []tender.ImageID{{Reference: "shop-web", ID: "sha256:abc"}}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{composeProject, composeService} {
		if v, ok := made.Labels[k]; v != "" || !ok {
			t.Errorf("it has the label %s: %q", k, v)
		}
	}
	if _, ok := made.Labels["mine"]; ok || made.Labels[labelKeep] != "shop" {
		t.Errorf("labels %v", made.Labels)
	}
	there = `[{"Id": "k", "Names": ["/tender-keep-shop-abc"], "State": "created", "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "tender.keep": "shop"}}]`
	p, err := e.List(t.Context())
	if err != nil || len(p.Instances) > 0 {
		t.Errorf("listed %+v %v", p.Instances, err)
	}
}
