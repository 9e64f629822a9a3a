package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

// Docker Compose's labels: complete, or it would not list what we made.
const (
	composeProject    = "com.docker.compose.project"
	composeService    = "com.docker.compose.service"
	composeNumber     = "com.docker.compose.container-number"
	composeOneoff     = "com.docker.compose.oneoff"
	composeHash       = "com.docker.compose.config-hash"
	composeImage      = "com.docker.compose.image"
	composeVersion    = "com.docker.compose.version"
	composeWorkingDir = "com.docker.compose.project.working_dir"
	composeFiles      = "com.docker.compose.project.config_files"
	composeDependsOn  = "com.docker.compose.depends_on"
	composeNetwork    = "com.docker.compose.network"
	composeVolume     = "com.docker.compose.volume"
)

// Tender's own labels. With them a lost store can be rebuilt.
const (
	labelProject    = "tender.project"
	labelService    = "tender.service"
	labelRevision   = "tender.revision"
	labelSlot       = "tender.slot"
	labelGeneration = "tender.generation"
	labelImage      = "tender.image" // tender.ImageID as JSON
	labelSpec       = "tender.spec"  // canonical YAML of the service
	labelHome       = "tender.home"  // data directory of the Tender that made it
	labelRange      = "tender.range" // of a network: the addresses that Tender gives to instances, one by one
)

// ours reports whether a label belongs to Tender or Docker Compose, not to the user.
func ours(label string) bool {
	return strings.HasPrefix(label, "tender.") || strings.HasPrefix(label, "com.docker.compose.")
}

// labels of a container for slot of w; slot 0 is one outside of all slots.
func labels(w engine.Want, s types.ServiceConfig, slot int) map[string]string {
	out := map[string]string{}
	maps.Copy(out, s.Labels)
	image, _ := json.Marshal(w.Image) // strings and a bool: cannot fail
	maps.Copy(out, map[string]string{
		composeProject:    w.Project,
		composeService:    w.Service.Name,
		composeNumber:     strconv.Itoa(max(slot, 1)),
		composeOneoff:     "False",
		composeHash:       ConfigHash(w.Project, s),
		composeImage:      w.Image.ID,
		composeVersion:    "tender",
		composeWorkingDir: w.WorkingDir,
		composeFiles:      strings.Join(w.ComposeFiles, ","),
		composeDependsOn:  dependsOn(s),
		labelProject:      w.Project,
		labelService:      w.Service.Name,
		labelRevision:     w.Service.Revision,
		labelSlot:         strconv.Itoa(slot),
		labelGeneration:   strconv.Itoa(w.Generation),
		labelImage:        string(image),
		labelSpec:         string(w.Service.Spec),
	})
	return out
}

// dependsOn is Compose's label: NAME:CONDITION:RESTART, with commas between.
func dependsOn(s types.ServiceConfig) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.DependsOn)) {
		d := s.DependsOn[name]
		out = append(out, fmt.Sprintf("%s:%s:%t", name, d.Condition, d.Restart))
	}
	return strings.Join(out, ",")
}

// plainName is the name of slot: PROJECT-SERVICE-N, or the container_name.
func plainName(project string, s types.ServiceConfig, slot int) string {
	if s.ContainerName != "" {
		return s.ContainerName
	}
	return fmt.Sprintf("%s-%s-%d", project, s.Name, slot)
}

// imageOf reads the image label.
func imageOf(labels map[string]string) (id tender.ImageID, ok bool) {
	err := json.Unmarshal([]byte(labels[labelImage]), &id)
	return id, err == nil
}
