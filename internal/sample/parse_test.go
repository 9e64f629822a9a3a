package sample

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0 true", "42\n": "42 true", "18446744073709551615": "18446744073709551615 true", "18446744073709551616": "18446744073709551615 true",
		"99999999999999999999999": "18446744073709551615 true", "": "0 false", "\n": "0 false", "max\n": "0 false", "-1\n": "0 false", "7x": "0 false", "12 100000": "12 true",
	} {
		n, ok := number([]byte(text))
		if got := fmt.Sprint(n, ok); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]string{"0.42": "0.42 true", "12": "12 true", "x": "0 false", "1.x": "0 false", "": "0 false"} {
		v, ok := decimal([]byte(text))
		if got := fmt.Sprintf("%.4g %v", v, ok); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// Whatever stands in a file: no reader fails, and no value is out of bounds.
func FuzzReadings(f *testing.F) {
	for _, text := range []string{
		"user 2\nsystem 5\n", "nr_periods 13\nnr_throttled 0\nthrottled_time 0\n", "usage_usec 80743\nuser_usec 25695\n", "total_cache 6873088\ntotal_rss 241664\n",
		"254:0 Read 8192\nTotal 8192\n", "259:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n", "some avg10=0.00 avg60=0.12 total=9122834\nfull total=1\n",
		"max 100000\n", "150000 100000\n", "9223372036854771712\n", "4242\n4301\n", "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
		"cpu0 1 2 3 4 5 6 7 8 9 10\nctxt 5\nbtime 1\n", "MemTotal: 24683652 kB\nHugePages_Total: 0\n", "254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n", "0.42 1.03 1.80 13/149 1478\n",
		"30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "4:memory:/docker/abc\n0::/docker/abc\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var r reading
		for _, list := range [][]source{sourcesV1, sourcesV2} {
			for _, s := range list {
				s.read(&r, text)
			}
		}
		r.derive()
		for m := range metrics {
			if v := r.value[m]; r.has[m] && (v < 0 || math.IsNaN(v) || math.IsInf(v, 0)) {
				t.Errorf("%s is %v", named[m].name, v)
			}
		}
		interfaces(text, new([16]uint64), func(name []byte) {
			if len(name) == 0 || strings.ContainsAny(string(name), " \t\n:") {
				t.Errorf("an interface is called %q", name)
			}
		})
		s := &Sampler{o: Options{Node: "n1"}}
		h := &host{s: s, single: map[string]*Series{}, cpus: map[string]*[len(modes) + 2]*Series{}, fields: map[string]*Series{}, disk: map[string]*hostDisk{}, nic: map[string]*hostInterface{}}
		for _, read := range []func([]byte){h.processors, h.loads, h.meminfo, h.diskstats, h.interfaces, h.descriptors, h.vmstat} {
			read(text)
		}
		for _, p := range s.points {
			if p.Value < 0 || math.IsNaN(p.Value) || math.IsInf(p.Value, 0) {
				t.Errorf("%s is %v", p.Series.Name, p.Value)
			}
		}
		of := readHierarchies(string(text))
		of.find(readGroups(string(text)), "abc")
	})
}
