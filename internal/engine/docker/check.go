package docker

import (
	"context"
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client/pkg/versions"

	tender "github.com/tenderhq/tender"
)

// Check implements engine.Reader: what needs a later API than is spoken, or a
// kernel that can do more, is said before anything is made.
func (e *Engine) Check(ctx context.Context, svc tender.Service) (warnings []string, err error) {
	if err := e.negotiate(ctx, false); err != nil {
		return nil, err
	}
	_, s, err := e.service(svc)
	if err != nil {
		return nil, err
	}
	for _, n := range needs(s) {
		if !n.used || versions.GreaterThanOrEqualTo(e.c().ClientVersion(), n.api) {
			continue
		}
		if n.harmless {
			warnings = append(warnings, fmt.Sprintf("service %s: %s is left out: it needs API %s, this engine speaks %s",
				s.Name, n.what, n.api, e.c().ClientVersion()))
			continue
		}
		return warnings, tender.Errorf(tender.Invalid, "service %s: %s needs API %s, this engine speaks %s",
			s.Name, n.what, n.api, e.c().ClientVersion()).Hint("remove %s from services.%s, or upgrade the engine", n.what, s.Name)
	}
	for what, used := range map[string]bool{
		"pre_start": len(s.PreStart) > 0,
		"provider":  s.Provider != nil, "models": len(s.Models) > 0, "use_api_socket": s.UseAPISocket,
		"credential_spec": s.CredentialSpec != nil,
	} {
		if used {
			return warnings, tender.Errorf(tender.Invalid, "service %s: %s is not honoured by this engine", s.Name, what).
				Hint("remove %s from services.%s", what, s.Name)
		}
	}
	info, r := e.info.Load(), resources(s)
	for what, missing := range map[string]bool{
		"a memory limit":       r.Memory > 0 && !info.MemoryLimit,
		"a swap limit":         r.MemorySwap > 0 && !info.SwapLimit,
		"a limit of CPUs":      r.NanoCPUs > 0 && !info.CPUCfsQuota,
		"a limit of processes": r.PidsLimit != nil && !info.PidsLimit,
	} {
		if missing {
			warnings = append(warnings, fmt.Sprintf("service %s: the kernel cannot keep %s", s.Name, what))
		}
	}
	return warnings, nil
}

// need is a part of a service that not every API has.
type need struct {
	what, api      string
	used, harmless bool
}

func needs(s types.ServiceConfig) []need {
	subpath, imageMount, recursive, mac, gateway, ifname, device := false, false, false, s.MacAddress != "", false, false, false
	for _, v := range s.Volumes {
		subpath = subpath || v.Volume != nil && v.Volume.Subpath != ""
		imageMount = imageMount || v.Type == types.VolumeTypeImage
		recursive = recursive || v.Bind != nil && (v.Bind.Recursive == "writable" || v.Bind.Recursive == "readonly")
	}
	for _, n := range s.Networks {
		if n != nil {
			mac = mac || n.MacAddress != ""
			gateway = gateway || n.GatewayPriority != 0
			ifname = ifname || n.InterfaceName != ""
		}
	}
	for _, d := range s.Devices {
		device = device || cdi(d.Source)
	}
	return []need{
		{what: "annotations", api: "1.43", used: len(s.Annotations) > 0},
		{what: "mac_address", api: "1.44", used: mac},
		{what: "bind.recursive", api: "1.44", used: recursive},
		{what: "a CDI device", api: "1.44", used: device},
		{what: "healthcheck.start_interval", api: "1.44", used: s.HealthCheck != nil && s.HealthCheck.StartInterval != nil, harmless: true},
		{what: "volume.subpath", api: "1.45", used: subpath},
		{what: "a volume of type image", api: "1.48", used: imageMount},
		{what: "gw_priority", api: "1.48", used: gateway, harmless: true},
		{what: "interface_name", api: "1.49", used: ifname},
		{what: "umask", api: "1.56", used: s.Umask != nil},
	}
}
