package daemon

import (
	"fmt"
	"time"

	"github.com/docker/go-units"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// instance turns one into its wire type.
func instance(i tender.Instance, now time.Time) api.Instance {
	out := api.Instance{
		ID: i.ID, Name: i.Name, Project: i.Project, Service: i.Service, Revision: i.Revision, Slot: i.Slot,
		Command: i.Command, Image: i.Image, ImageID: i.ImageID, State: string(i.State), Health: string(i.Health), ExitCode: i.ExitCode, OOM: i.OOM,
		Status: status(i, now), Restarts: i.Restarts, Created: i.Created, Started: i.Started,
		Foreign: i.Foreign, Oneoff: i.Oneoff, Drift: i.Drift, Addresses: i.Addresses,
	}
	for _, p := range i.Ports {
		out.Ports = append(out.Ports, api.Port(p))
	}
	return out
}

// status says it as docker ps does.
func status(i tender.Instance, now time.Time) string {
	ago := func(t time.Time) string { return units.HumanDuration(max(now.Sub(t), 0)) }
	switch i.State {
	case tender.Running:
		up := "Up " + ago(i.Started)
		switch i.Health {
		case tender.Starting:
			return up + " (health: starting)"
		case "":
			return up
		}
		return fmt.Sprintf("%s (%s)", up, i.Health)
	case tender.Paused:
		return "Up " + ago(i.Started) + " (Paused)"
	case tender.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", i.ExitCode, ago(i.Finished))
	case tender.Exited:
		why := ""
		if i.OOM {
			why = ", out of memory"
		}
		return fmt.Sprintf("Exited (%d%s) %s ago", i.ExitCode, why, ago(i.Finished))
	case tender.Created:
		return "Created"
	case tender.Removing:
		return "Removal In Progress"
	}
	return "Dead"
}
