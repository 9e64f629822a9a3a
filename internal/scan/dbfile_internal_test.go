package scan

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const one = `{"id":"GHSA-1","modified":"2024-01-01T00:00:00Z","aliases":["CVE-2024-1"],"summary":"x","affected":[{"package":{"ecosystem":"npm","name":"a"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.2.3"}]}],"versions":["1.0.0"],"database_specific":{"severity":"HIGH","last_known_affected_version_range":"<= 9"}}]}`

func encodedFile(t testing.TB) []byte {
	b := &builder{dir: t.TempDir()}
	p, err := parseOSV([]byte(one), "npm")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.add(p); err != nil {
		t.Fatal(err)
	}
	if _, err := b.write("npm", time.Unix(0, 0), nil, nil); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(b.dir, "npm.adv"))
	if err != nil {
		t.Fatal(err)
	}
	return whole
}

func FuzzIndex(f *testing.F) {
	f.Add(encodedFile(f))
	f.Add([]byte(fileMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newFileReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		defer r.close()
		_, _ = r.find("a")
		_ = r.all(func(row) error { return nil })
	})
}

func FuzzRecord(f *testing.F) {
	p, err := parseOSV([]byte(one), "npm")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.rows[0].data)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAdvisory(b)
		if err != nil {
			return
		}
		again, err := readAdvisory(appendAdvisory(nil, &a))
		if err != nil || again.ID != a.ID || len(again.Affected) != len(a.Affected) {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}

func FuzzOSV(f *testing.F) {
	f.Add([]byte(one))
	f.Add([]byte(`{"id":"A","affected":[{"package":{"ecosystem":"npm","name":"a"},"database_specific":7,"versions":null}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseOSV(b, "npm")
		if err != nil {
			return
		}
		for _, r := range p.rows {
			a, err := readAdvisory(r.data)
			if err != nil {
				t.Fatal(err)
			}
			judge("npm", "", "1.2.0", a)
		}
	})
}

// Rows that do not fit into memory come out of runs in order.
func TestSortingInRuns(t *testing.T) {
	b := &builder{dir: t.TempDir()}
	defer b.close()
	for _, id := range []string{"c", "a", "b", "d", "a"} {
		if err := b.add(parsed{id: id, rows: []row{{name: id, id: id, data: []byte(id)}}}); err != nil {
			t.Fatal(err)
		}
		if err := b.spill(); err != nil {
			t.Fatal(err)
		}
	}
	got := ""
	if err := b.sorted(func(r row) error { got += r.name + string(r.data); return nil }); err != nil {
		t.Fatal(err)
	}
	if got != "aaaabbccdd" {
		t.Errorf("got %s", got)
	}
}
