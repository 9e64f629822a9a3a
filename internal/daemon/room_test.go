package daemon

import (
	"strings"
	"testing"

	tender "github.com/tenderhq/tender"
)

func TestAServiceIsNotScaledBeyondItsHostPorts(t *testing.T) {
	for _, tt := range []struct {
		published string
		n         int
		want      string
	}{
		{"8080", 1, ""},
		{"8080", 2, ""}, // the edge holds it
		{"8080-8082", 3, ""},
		{"8080-8082", 4, "scale web to 4: it publishes host ports 8080-8082, enough for 3"},
		{"0", 9, ""},
		{"", 9, ""},
	} {
		spec := []byte("name: shop\nx-tender-format: 1\nservices: {web: {image: nginx, ports: [{target: 80, published: \"" + tt.published + "\"}]}}\n")
		err := room([]tender.Service{{Name: "web", Spec: spec}, {Name: "db"}}, map[string]int{"web": tt.n})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s x %d: %v, want %q", tt.published, tt.n, err, tt.want)
		}
	}
}
