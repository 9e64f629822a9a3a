package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// picture is what the engine says of a project, as lines PATH = VALUE: of its
// containers what creating them decides, of its networks and volumes what
// making them does. What is empty is left out, so that null, [] and "" are one.
type picture map[string]string

// takePicture asks the engine. dirs are where Tender's files of secrets and configs lie:
// the mounts of such files are named by their target alone.
func takePicture(ctx context.Context, t *testing.T, c *client.Client, project string, dirs ...string) picture {
	t.Helper()
	of := make(client.Filters).Add("label", "com.docker.compose.project="+project)
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: of})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{} // pairs of old and new: ids and projects are different each time
	var raw []json.RawMessage
	for _, i := range list.Items {
		r, err := c.ContainerInspect(ctx, i.ID, client.ContainerInspectOptions{})
		if cerrdefs.IsNotFound(err) { // replaced meanwhile: what is there now is another picture
			return takePicture(ctx, t, c, project, dirs...)
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, i.ID, strings.ReplaceAll(r.Container.Name[1:], project, "PROJECT"), `"`+i.ID[:12]+`"`, `"SHORT-ID"`)
		raw = append(raw, r.Raw)
	}
	networks, err := c.NetworkList(ctx, client.NetworkListOptions{Filters: of})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks.Items {
		names = append(names, n.ID, strings.ReplaceAll(n.Name, project, "PROJECT"))
	}
	names = append(names, project, "PROJECT")
	p, rename := picture{}, strings.NewReplacer(names...)
	for _, r := range raw {
		var all map[string]any
		if err := json.Unmarshal([]byte(rename.Replace(string(r))), &all); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(all["Name"].(string), "/")
		settleContainer(all, dirs)
		for _, part := range []string{"Config", "HostConfig", "Mounts", "Networks"} {
			p.add(name+" "+part, all[part])
		}
	}
	for _, n := range networks.Items {
		labels := maps.Clone(n.Labels)
		maps.DeleteFunc(labels, ofTool)
		p.add("network "+rename.Replace(n.Name), plain(t, rename, map[string]any{
			"Driver": n.Driver, "Internal": n.Internal, "Attachable": n.Attachable, "IPv6": n.EnableIPv6, "Options": n.Options, "Labels": labels,
		}))
	}
	volumes, err := c.VolumeList(ctx, client.VolumeListOptions{Filters: of})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes.Items {
		labels := maps.Clone(v.Labels)
		maps.DeleteFunc(labels, ofTool)
		p.add("volume "+rename.Replace(v.Name), plain(t, rename, map[string]any{"Driver": v.Driver, "Options": v.Options, "Labels": labels}))
	}
	return p
}

// ofTool reports whether a label says which tool made a thing rather than what it is.
func ofTool(label, _ string) bool {
	return strings.HasPrefix(label, "tender.") || label == "com.docker.compose.version" ||
		// Of networks and volumes Tender compares what is there with what the file says, not hashes.
		label == "com.docker.compose.config-hash"
}

var longID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// settleContainer takes away what is meant to be different, or depends on
// whether the container has been started: Tender starts what it creates.
func settleContainer(all map[string]any, dirs []string) {
	config, host := all["Config"].(map[string]any), all["HostConfig"].(map[string]any)
	labels, _ := config["Labels"].(map[string]any)
	for k := range labels {
		if strings.HasPrefix(k, "tender.") || k == "com.docker.compose.version" || k == "com.docker.compose.replace" {
			delete(labels, k)
		}
	}
	if depends, _ := labels["com.docker.compose.depends_on"].(string); depends != "" {
		list := strings.Split(depends, ",") // in the order of a map
		slices.Sort(list)
		labels["com.docker.compose.depends_on"] = strings.Join(list, ",")
	}
	if config["Hostname"] == "SHORT-ID" {
		delete(config, "Hostname")
	}
	// Whether the first client that attaches gets the output is no property of the service.
	for _, k := range []string{"AttachStdin", "AttachStdout", "AttachStderr"} {
		delete(config, k)
	}
	// An empty name is the older word for "no".
	if policy, _ := host["RestartPolicy"].(map[string]any); policy["Name"] == "no" {
		delete(policy, "Name")
	}
	// KEY:VALUE is the older form of KEY=VALUE.
	opts, _ := host["SecurityOpt"].([]any)
	for i := range opts {
		if key, value, ok := strings.Cut(opts[i].(string), ":"); ok && !strings.Contains(key, "=") {
			opts[i] = key + "=" + value
		}
	}
	// Nothing said about the log: Tender bounds it.
	if log, _ := host["LogConfig"].(map[string]any); log["Type"] == "json-file" {
		if o, _ := log["Config"].(map[string]any); o["max-size"] == "10m" && o["max-file"] == "3" {
			delete(log, "Config")
		}
	}
	// On the engine's own command line PLACE:TARGET:MODE and a mount are two ways to say one thing; what
	// came of either is under Mounts. Options that only the second has are kept by target.
	options := map[string]any{}
	mounts, _ := host["Mounts"].([]any)
	for _, m := range mounts {
		m := m.(map[string]any)
		o := map[string]any{}
		for _, k := range []string{"BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"} {
			if v, _ := m[k].(map[string]any); len(v) > 0 {
				delete(v, "CreateMountpoint") // without effect where the place is there
				delete(v, "NoCopy")           // shows in the mode of the mount
				delete(v, "Propagation")      // shows beside it
				o[k] = v
			}
		}
		options[m["Target"].(string)] = o
	}
	delete(host, "Binds")
	delete(host, "Mounts")
	host["MountOptions"] = options
	points := map[string]any{}
	list, _ := all["Mounts"].([]any)
	for _, m := range list {
		m := m.(map[string]any)
		target := m["Destination"].(string)
		if name, _ := m["Name"].(string); longID.MatchString(name) {
			m["Name"], m["Source"] = "anonymous", ""
		}
		source, _ := m["Source"].(string)
		if slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(source, dir+"/") }) {
			delete(options, target)
			points[target] = "a file of a secret or config"
			continue
		}
		m["Mode"] = mountMode(m["Mode"])
		points[target] = m
	}
	all["Mounts"] = points
	networks := map[string]any{}
	settings, _ := all["NetworkSettings"].(map[string]any)
	on, _ := settings["Networks"].(map[string]any)
	name := strings.TrimPrefix(all["Name"].(string), "/")
	numbered := fmt.Sprint(labels["com.docker.compose.service"], "-", labels["com.docker.compose.container-number"])
	across := fmt.Sprint(labels["com.docker.compose.service"], ".", labels["com.docker.compose.project"], ".tender")
	for key, n := range on {
		n := n.(map[string]any)
		// So that it can be named anew, with a healthcheck it has an address out of Tender's own pool.
		if ipam, _ := n["IPAMConfig"].(map[string]any); len(ipam) == 1 && config["Healthcheck"] != nil && pooled(ipam["IPv4Address"]) {
			n["IPAMConfig"] = map[string]any{}
		}
		var aliases []string
		list, _ := n["Aliases"].([]any)
		for _, a := range list {
			// The engine itself finds a container by its name, hostname and id. SERVICE-N is Tender's own,
			// and SERVICE.PROJECT.tender where a network is shared.
			if a != name && a != "SHORT-ID" && a != numbered && (a != across || key == "PROJECT_default") && a != config["Hostname"] {
				aliases = append(aliases, a.(string))
			}
		}
		slices.Sort(aliases)
		links, _ := n["Links"].([]any)
		slices.SortFunc(links, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		networks[key] = map[string]any{
			"Aliases": strings.Join(slices.Compact(aliases), " "), "IPAMConfig": n["IPAMConfig"], "Links": n["Links"],
			"DriverOpts": n["DriverOpts"], "GwPriority": n["GwPriority"],
		}
	}
	all["Networks"] = networks
}

// pooled reports whether an address is one that Tender chose: files of the corpus name none of its pool.
func pooled(address any) bool {
	a, err := netip.ParseAddr(fmt.Sprint(address))
	return err == nil && netip.MustParsePrefix("10.201.0.0/16").Contains(a)
}

// mountMode leaves out what the engine says only of the one or the other way to ask for a mount.
func mountMode(mode any) string {
	var out []string
	for o := range strings.SplitSeq(fmt.Sprint(mode), ",") {
		if o == "nocopy" {
			out = append(out, o)
		}
	}
	return strings.Join(out, ",")
}

// plain turns Go values into what JSON knows, with settled names.
func plain(t *testing.T, rename *strings.Replacer, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal([]byte(rename.Replace(string(b))), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (p picture) add(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			p.add(path+"."+k, e)
		}
	case []any:
		// Lists that the engine keeps as sets have no order.
		if at := path[strings.LastIndexByte(path, '.')+1:]; slices.Contains([]string{"Env", "ExtraHosts", "Ulimits", "Links"}, at) {
			slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		for i, e := range v {
			p.add(fmt.Sprintf("%s[%d]", path, i), e)
		}
	case nil:
	default:
		if b, _ := json.Marshal(v); !slices.Contains([]string{`""`, `0`, `false`}, string(b)) {
			p[path] = string(b)
		}
	}
}

// lines are in order, without those that one of the patterns fits.
func (p picture) lines(but []difference) []string {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(p)) {
		if !slices.ContainsFunc(but, func(d difference) bool { return strings.Contains(path, d.path) }) {
			out = append(out, path+" = "+p[path])
		}
	}
	return out
}

// difference is one that is meant: every line whose path holds path.
type difference struct{ path, why string }
