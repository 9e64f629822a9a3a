package docker

import (
	"context"
	"errors"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
)

// An image is safe from docker image prune -a while a container has it, tags or
// not. Those that are kept and have none get one that never starts and holds no
// network, name or volume of anybody.
const (
	labelKeep = "tender.keep" // the project that needs the image
	keepName  = "tender-keep-"
)

// Keep implements engine.Images.
func (e *Engine) Keep(ctx context.Context, project string, images []tender.ImageID) error {
	list, err := e.c().ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", labelKeep+"="+project)})
	if err != nil {
		return wrap(err, "list what keeps images")
	}
	there := map[string]string{} // container by image
	for _, c := range list.Items {
		there[c.Labels[labelImage]] = c.ID
	}
	var errs []error
	for _, image := range images {
		if image.ID == "" {
			continue
		}
		if _, ok := there[image.ID]; ok {
			delete(there, image.ID)
			continue
		}
		errs = append(errs, e.hold(ctx, project, image))
	}
	for _, id := range there {
		_, err := e.c().ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && kind(err) != tender.NotFound {
			errs = append(errs, wrap(err, "let go of an image"))
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) hold(ctx context.Context, project string, image tender.ImageID) error {
	labels := map[string]string{labelKeep: project, labelImage: image.ID}
	got, err := e.c().ImageInspect(ctx, image.ID)
	switch {
	case err != nil && kind(err) == tender.NotFound:
		return nil
	case err != nil:
		return wrap(err, "inspect image %s", image.Reference)
	case got.Config != nil:
		// One that Docker Compose has built passes its labels on: then this would be an instance of its project.
		for k := range got.Config.Labels {
			if strings.HasPrefix(k, "com.docker.compose.") {
				labels[k] = ""
			}
		}
	}
	host := &container.HostConfig{NetworkMode: "none", Tmpfs: map[string]string{}}
	for _, path := range image.Volumes {
		host.Tmpfs[path] = "" // else it would come with a volume
	}
	_, err = e.c().ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:       keepName + project + "-" + short(strings.TrimPrefix(image.ID, "sha256:")),
		Config:     &container.Config{Image: image.ID, Cmd: []string{"true"}, Labels: labels},
		HostConfig: host,
	})
	if err != nil && (kind(err) == tender.NotFound || kind(err) == tender.Conflict) {
		return nil // it is gone already, or somebody is faster
	}
	return wrap(err, "keep image %s", image.Reference)
}
