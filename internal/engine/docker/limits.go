package docker

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"

	tender "github.com/tenderhq/tender"
)

// restartPolicy is the engine's share of restart: crashes heal with Tender away.
// Where the order of starts matters more, x-tender.boot takes that share away.
func restartPolicy(s types.ServiceConfig) container.RestartPolicy {
	out := container.RestartPolicy{Name: container.RestartPolicyDisabled}
	if x, ok := s.Extensions["x-tender"].(map[string]any); ok && x["boot"] == tender.BootOrdered {
		return out
	}
	if s.Restart != "" {
		name, count, _ := strings.Cut(s.Restart, ":")
		out.Name = container.RestartPolicyMode(name)
		if out.Name == container.RestartPolicyOnFailure {
			fmt.Sscanf(count, "%d", &out.MaximumRetryCount)
		}
	}
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil && s.Restart == "" {
		p := s.Deploy.RestartPolicy
		switch p.Condition {
		case "none":
		case "on-failure":
			out.Name = container.RestartPolicyOnFailure
			if p.MaxAttempts != nil {
				out.MaximumRetryCount = int(*p.MaxAttempts)
			}
		default:
			out.Name = container.RestartPolicyAlways
		}
	}
	return out
}

// resources are the limits; those under deploy.resources win over the older fields.
func resources(s types.ServiceConfig) container.Resources {
	r := container.Resources{
		CPUShares:          s.CPUShares,
		Memory:             int64(s.MemLimit),
		NanoCPUs:           nano(s.CPUS),
		CgroupParent:       s.CgroupParent,
		CPUPeriod:          s.CPUPeriod,
		CPUQuota:           s.CPUQuota,
		CPURealtimePeriod:  s.CPURTPeriod,
		CPURealtimeRuntime: s.CPURTRuntime,
		CpusetCpus:         s.CPUSet,
		DeviceCgroupRules:  s.DeviceCgroupRules,
		MemoryReservation:  int64(s.MemReservation),
		MemorySwap:         int64(s.MemSwapLimit),
		CPUCount:           s.CPUCount,
		CPUPercent:         int64(s.CPUPercent),
	}
	if s.OomKillDisable {
		r.OomKillDisable = &s.OomKillDisable
	}
	if s.MemSwappiness != 0 {
		n := int64(s.MemSwappiness)
		r.MemorySwappiness = &n
	}
	if s.PidsLimit != 0 {
		r.PidsLimit = &s.PidsLimit
	}
	var reserved []types.DeviceRequest
	if s.Deploy != nil {
		if l := s.Deploy.Resources.Limits; l != nil {
			if l.MemoryBytes != 0 {
				r.Memory = int64(l.MemoryBytes)
			}
			if l.NanoCPUs != 0 {
				r.NanoCPUs = nano(l.NanoCPUs.Value())
			}
			if l.Pids != 0 {
				r.PidsLimit = &l.Pids
			}
		}
		if l := s.Deploy.Resources.Reservations; l != nil {
			if l.MemoryBytes != 0 {
				r.MemoryReservation = int64(l.MemoryBytes)
			}
			reserved = l.Devices
		}
	}
	for _, d := range slices.Concat(s.Gpus, reserved) {
		r.DeviceRequests = append(r.DeviceRequests, deviceRequest(d, len(s.Gpus) > 0))
	}
	for _, d := range s.Devices {
		if cdi(d.Source) {
			r.DeviceRequests = append(r.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{d.Source}})
			continue
		}
		m := container.DeviceMapping{PathOnHost: d.Source, PathInContainer: d.Target, CgroupPermissions: d.Permissions}
		if m.PathInContainer == "" {
			m.PathInContainer = d.Source
		}
		if m.CgroupPermissions == "" {
			m.CgroupPermissions = "rwm"
		}
		r.Devices = append(r.Devices, m)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		u := s.Ulimits[name]
		l := &units.Ulimit{Name: name, Soft: int64(u.Soft), Hard: int64(u.Hard)}
		if u.Single != 0 {
			l.Soft, l.Hard = int64(u.Single), int64(u.Single)
		}
		r.Ulimits = append(r.Ulimits, l)
	}
	if b := s.BlkioConfig; b != nil {
		r.BlkioWeight = b.Weight
		for _, d := range b.WeightDevice {
			r.BlkioWeightDevice = append(r.BlkioWeightDevice, &blkiodev.WeightDevice{Path: d.Path, Weight: d.Weight})
		}
		r.BlkioDeviceReadBps = throttle(b.DeviceReadBps)
		r.BlkioDeviceReadIOps = throttle(b.DeviceReadIOps)
		r.BlkioDeviceWriteBps = throttle(b.DeviceWriteBps)
		r.BlkioDeviceWriteIOps = throttle(b.DeviceWriteIOps)
	}
	return r
}

// nano rounds to a thousandth: 0.1 as a float32 is not 100000000 of a billion.
func nano(cpus float32) int64 {
	return int64(math.Round(float64(cpus)*1000)) * 1_000_000
}

func throttle(in []types.ThrottleDevice) []*blkiodev.ThrottleDevice {
	var out []*blkiodev.ThrottleDevice
	for _, d := range in {
		out = append(out, &blkiodev.ThrottleDevice{Path: d.Path, Rate: uint64(d.Rate)})
	}
	return out
}

// cdi reports whether a device is named as VENDOR/CLASS=NAME.
func cdi(source string) bool {
	return !strings.HasPrefix(source, "/") && strings.Contains(source, "=")
}

func deviceRequest(d types.DeviceRequest, gpu bool) container.DeviceRequest {
	out := container.DeviceRequest{Driver: d.Driver, Count: int(d.Count), DeviceIDs: d.IDs, Options: d.Options}
	if out.Count == 0 && len(d.IDs) == 0 {
		out.Count = -1
	}
	caps := slices.Clone(d.Capabilities)
	if gpu && !slices.Contains(caps, "gpu") {
		caps = append(caps, "gpu")
	}
	out.Capabilities = [][]string{caps}
	return out
}
