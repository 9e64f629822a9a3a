package sample

import (
	"os"
	"strings"
	"testing"
)

// docs/samples.md names every series.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/samples.md")
	if err != nil {
		t.Fatal(err)
	}
	root := tree(t, hostTree())
	s, err := New(Options{Node: "n1", Proc: root + "/proc", Sys: root + "/sys"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Root(root)
	names := map[string]bool{}
	for _, p := range s.Take(t.Context(), nil).Points {
		names[p.Series.Name] = true
	}
	for _, n := range named {
		names[n.name] = true
	}
	for _, n := range append(namedOfDisk[:], namedOfInterface[:]...) {
		names[n.name] = true
	}
	for name := range names {
		told := name
		switch { // these are told of together
		case strings.HasPrefix(name, "node_memory_"):
			told = "node_memory_MemAvailable_bytes"
		case strings.HasPrefix(name, "node_network_receive_"):
			told = "node_network_receive_bytes_total"
		case strings.HasPrefix(name, "node_network_transmit_"):
			told = "node_network_transmit_bytes_total"
		case strings.HasPrefix(name, "container_network_transmit_"):
			told = strings.Replace(name, "transmit", "receive", 1)
		case strings.HasPrefix(name, "container_pressure_"):
			told = "container_pressure_cpu_" + name[strings.LastIndex(strings.TrimSuffix(name, "_seconds_total"), "_")+1:]
		}
		if !strings.Contains(string(doc), "`"+told+"`") && !strings.Contains(string(doc), "`"+told+"{") {
			t.Errorf("docs/samples.md does not tell of %s", name)
		}
	}
}
