package compose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	composeformat "github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"
	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
)

// value compares a scalar with its shape and with what its field means.
func (w *walk) value(n *yaml.Node, s *shape, kind, value string, at place) {
	if len(s.enum) > 0 && !slices.Contains(s.enum, value) {
		w.bad(n, "", at.text("%q: want %s%s", value, list(s.enum), meant(value, s.enum)))
		return
	}
	if s.pattern != nil && !s.pattern.MatchString(value) {
		w.bad(n, "", at.text("%q is not valid", value))
		return
	}
	if kind == "integer" || kind == "number" {
		f, err := strconv.ParseFloat(value, 64)
		if err == nil && s.min != nil && f < *s.min {
			w.bad(n, "", at.text("want %v or more", *s.min))
		}
		if err == nil && s.max != nil && f > *s.max {
			w.bad(n, "", at.text("want %v or less", *s.max))
		}
	}
	if at.field == "services.*.ports.[]" {
		w.portRange(n, value, at)
	}
	if rule := values[at.field]; rule != nil && kind != "null" {
		if err := rule(value); err != nil {
			w.bad(n, "", at.text("%q: %s", value, err))
		}
	}
}

// portRange checks the short syntax of ports, which the parser writes out one by one.
func (w *walk) portRange(n *yaml.Node, value string, at place) {
	if w.ports > maxPorts {
		return
	}
	ports, err := types.ParsePortConfig(value)
	if err != nil {
		w.bad(n, "", at.text("%q: %s", value, err))
	}
	if w.ports += len(ports); w.ports > maxPorts {
		w.bad(n, "", at.text("more than %d ports in one project", maxPorts))
	}
}

func list(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func meant(word string, known []string) string {
	if n := tender.Nearest(word, known); n != "" {
		return fmt.Sprintf(", did you mean %q?", n)
	}
	return ""
}

// values holds what the schema does not say: the form of durations, sizes,
// ports and volumes, and values of honoured fields that are not honoured.
var values = map[string]func(string) error{
	"services.*.stop_grace_period":                                   duration,
	"services.*.healthcheck.interval":                                duration,
	"services.*.healthcheck.timeout":                                 duration,
	"services.*.healthcheck.start_period":                            duration,
	"services.*.healthcheck.start_interval":                          duration,
	"services.*.deploy.update_config.delay":                          duration,
	"services.*.deploy.update_config.monitor":                        duration,
	"services.*.deploy.rollback_config.delay":                        duration,
	"services.*.deploy.rollback_config.monitor":                      duration,
	"services.*.mem_limit":                                           size,
	"services.*.mem_reservation":                                     size,
	"services.*.memswap_limit":                                       size,
	"services.*.shm_size":                                            size,
	"services.*.build.shm_size":                                      size,
	"services.*.deploy.resources.limits.memory":                      size,
	"services.*.deploy.resources.reservations.memory":                size,
	"services.*.volumes.[].tmpfs.size":                               size,
	"services.*.cpus":                                                number,
	"services.*.deploy.resources.limits.cpus":                        number,
	"services.*.deploy.replicas":                                     count,
	"services.*.scale":                                               count,
	"services.*.environment.[]":                                      pair,
	"services.*.labels.[]":                                           pair,
	"services.*.annotations.[]":                                      pair,
	"services.*.sysctls.[]":                                          pair,
	"services.*.build.args.[]":                                       pair,
	"services.*.build.labels.[]":                                     pair,
	"services.*.deploy.labels.[]":                                    pair,
	"services.*.deploy.resources.reservations.devices.[].options.[]": pair,
	"services.*.gpus.[].options.[]":                                  pair,
	"services.*.volumes.[].volume.labels.[]":                         pair,
	"networks.*.labels.[]":                                           pair,
	"volumes.*.labels.[]":                                            pair,
	"configs.*.labels.[]":                                            pair,
	"secrets.*.labels.[]":                                            pair,
	"services.*.image": func(v string) error {
		if _, err := reference.ParseAnyReference(v); err != nil {
			return fmt.Errorf("not the name of an image")
		}
		return nil
	},
	"services.*.devices.[]": func(v string) error {
		if strings.Count(v, ":") > 2 {
			return fmt.Errorf("want HOST, HOST:CONTAINER or HOST:CONTAINER:PERMISSIONS")
		}
		return nil
	},
	"services.*.ulimits.*":      limit,
	"services.*.ulimits.*.soft": limit,
	"services.*.ulimits.*.hard": limit,
	"services.*.ports.[].target": func(v string) error {
		if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("want a port from 1 to 65535")
		}
		return nil
	},
	"services.*.ports.[].published": func(v string) error {
		first, last, ranged := strings.Cut(v, "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if v != "" && (err != nil || ranged && (err2 != nil || b < a)) {
			return fmt.Errorf("want a port such as 8080 or a range such as 8080-8090")
		}
		return nil
	},
	"services.*.ports.[].mode":     oneOf("host", "ingress"),
	"services.*.ports.[].protocol": oneOf("tcp", "udp", "sctp"),
	"services.*.volumes.[]": func(v string) error {
		_, err := composeformat.ParseVolume(v)
		return err
	},
	"services.*.volumes.[].type": oneOf("bind", "volume", "tmpfs", "image"),
	"services.*.restart": func(v string) error {
		_, _, err := restart(types.ServiceConfig{Restart: v})
		return err
	},
	"services.*.deploy.mode":                           oneOf("replicated", "global"),
	"services.*.deploy.restart_policy.condition":       oneOf("none", "on-failure", "any", "no", "always", "unless-stopped"),
	"services.*.deploy.update_config.failure_action":   oneOf("pause", "continue", "rollback"),
	"services.*.deploy.rollback_config.failure_action": oneOf("pause", "continue"),
	"services.*.pull_policy":                           oneOf("always", "never", "missing", "if_not_present", "build"),
	"services.*.secrets.[].uid":                        count,
	"services.*.secrets.[].gid":                        count,
	"services.*.configs.[].uid":                        count,
	"services.*.configs.[].gid":                        count,
}

// pair is an entry of a list that could be a mapping.
func pair(v string) error {
	if name, _, _ := strings.Cut(v, "="); name == "" {
		return fmt.Errorf("want NAME=VALUE or NAME")
	}
	return nil
}

func limit(v string) error {
	if n, err := strconv.ParseInt(v, 10, 64); err != nil || n < -1 {
		return fmt.Errorf("want a whole number, or -1 for no limit")
	}
	return nil
}

func duration(v string) error {
	var d types.Duration
	if err := d.DecodeMapstructure(v); err != nil {
		return fmt.Errorf("want a duration such as 10s or 1m30s")
	}
	return nil
}

func size(v string) error {
	var b types.UnitBytes
	if err := b.DecodeMapstructure(v); err != nil {
		return fmt.Errorf("want a size such as 512m or 1g")
	}
	return nil
}

func number(v string) error {
	if f, err := strconv.ParseFloat(v, 64); err != nil || f < 0 {
		return fmt.Errorf("want a number such as 0.5 or 2")
	}
	return nil
}

func count(v string) error {
	if _, err := strconv.ParseUint(v, 10, 31); err != nil {
		return fmt.Errorf("want a whole number, 0 or more")
	}
	return nil
}

func oneOf(words ...string) func(string) error {
	return func(v string) error {
		if slices.Contains(words, v) {
			return nil
		}
		return fmt.Errorf("want %s%s", list(words), meant(v, words))
	}
}
