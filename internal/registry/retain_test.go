package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/store"
)

var today = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// sum is a digest that begins with a word.
func sum(word string) string {
	hex := fmt.Sprintf("%x", word)
	return "sha256:" + hex + strings.Repeat("0", 64-len(hex))
}

// shelf is what lies in a repository, in words: "v1=a 40d" is a tag of manifest a, pushed
// forty days ago; "=b 3d" has no tag; "i>a,b" says what an index holds, "s^a" what refers to
// what, "s^a!" that it is a signature.
func shelf(t *testing.T, repository, text string) (tags []store.Tag, ms []store.Manifest) {
	t.Helper()
	at := map[string]int{}
	manifest := func(word string) *store.Manifest {
		if _, is := at[word]; !is {
			at[word] = len(ms)
			ms = append(ms, store.Manifest{Repository: repository, Digest: sum(word), Pushed: today})
		}
		return &ms[at[word]]
	}
	for _, line := range strings.Split(text, ";") {
		line = strings.TrimSpace(line)
		if index, children, is := strings.Cut(line, ">"); is {
			for _, c := range strings.Split(children, ",") {
				manifest(c)
				manifest(index).Refs = append(manifest(index).Refs, store.ManifestRef{Kind: "child", Digest: sum(c)})
			}
			continue
		}
		if who, subject, is := strings.Cut(line, "^"); is {
			if word, signs := strings.CutSuffix(subject, "!"); signs {
				subject, manifest(who).Artifact = word, "application/vnd.dev.cosign.artifact.sig.v1+json"
			}
			manifest(who).Subject = sum(subject)
			continue
		}
		name, rest, _ := strings.Cut(line, "=")
		word, age, _ := strings.Cut(rest, " ")
		var days int
		if _, err := fmt.Sscanf(age, "%dd", &days); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		pushed := today.AddDate(0, 0, -days)
		manifest(word).Pushed = pushed
		if name != "" {
			if subject, suffix, is := strings.Cut(name, "."); is && len(subject) == 1 && slices.Contains([]string{"sig", "att", "sbom"}, suffix) {
				name = strings.Replace(sum(subject), ":", "-", 1) + "." + suffix
			}
			tags = append(tags, store.Tag{Repository: repository, Tag: name, Digest: sum(word), Pushed: pushed})
		}
	}
	return tags, ms
}

// printed is what was decided, with words in the place of digests.
func printed(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		text := s.String()
		for _, word := range []string{"a", "b", "c", "i", "j", "s", "x"} {
			full := sum(word)
			text = strings.ReplaceAll(text, full, word)
			text = strings.ReplaceAll(text, strings.Replace(full, ":", "-", 1), word)
			text = strings.ReplaceAll(text, short(full), word)
		}
		fmt.Fprintln(&b, text)
	}
	return b.String()
}

const day = 24 * time.Hour

func TestDecide(t *testing.T) {
	for _, test := range []struct {
		name, shelf string
		rules       []Rule
		needed      map[string]string
		want        string
	}{
		{
			"nothing goes without a rule", "v1=a 400d; =b 400d", nil, nil, `
shop/web:v1 stays: no rule fits it
shop/web@a stays: tagged v1
shop/web@b stays: no rule is about manifests without a tag
`,
		},
		{
			"a rule of other repositories", "v1=a 400d; =b 400d", []Rule{{Repositories: []string{"shop/*/x", "lab/**"}, OlderThan: day}}, nil, `
shop/web:v1 stays: no rule fits it
shop/web@a stays: tagged v1
shop/web@b stays: no rule is about manifests without a tag
`,
		},
		{
			"the newest versions, whenever they were pushed", "v1.9.0=a 1d; v1.10.0=b 90d; v1.10.0-rc.2=c 80d; latest=x 100d",
			[]Rule{{Repositories: []string{"shop/**"}, Keep: 1}},
			nil, `
shop/web:latest stays: one of the 1 newest
shop/web:v1.10.0 stays: one of the 1 newest
shop/web:v1.10.0-rc.2 goes: not one of the 1 newest
shop/web:v1.9.0 goes: not one of the 1 newest
shop/web@a goes: its tag goes: v1.9.0
shop/web@b stays: tagged v1.10.0
shop/web@c goes: its tag goes: v1.10.0-rc.2
shop/web@x stays: tagged latest
`,
		},
		{
			"both limits", "v1=a 40d; v2=b 20d; v3=c 10d", []Rule{{Keep: 1, OlderThan: 30 * day}}, nil, `
shop/web:v1 goes: pushed 40d ago, and not one of the 1 newest
shop/web:v2 stays: pushed 20d ago, 30d is the limit
shop/web:v3 stays: one of the 1 newest
shop/web@a goes: its tag goes: v1
shop/web@b stays: tagged v2
shop/web@c stays: tagged v3
`,
		},
		{
			"the first rule decides", "main-1=a 40d; v1=b 40d; w=c 40d",
			[]Rule{{Tags: []string{"v*"}}, {Tags: []string{"main-*"}, OlderThan: 7 * day}},
			nil, `
shop/web:main-1 goes: pushed 40d ago, 7d is the limit
shop/web:v1 stays: rule 1 keeps it
shop/web:w stays: no rule fits it
shop/web@a goes: its tag goes: main-1
shop/web@b stays: tagged v1
shop/web@c stays: tagged w
`,
		},
		{
			"what is needed, the index that holds it, and what refers to that",
			"v1=i 40d; i>a,b; v2=j 40d; j>b,c; s^i; =s 40d",
			[]Rule{{OlderThan: 30 * day}},
			map[string]string{sum("a"): "deployed by shop/web"},
			`
shop/web:v1 stays: deployed by shop/web
shop/web:v2 goes: pushed 40d ago, 30d is the limit
shop/web@a stays: deployed by shop/web
shop/web@b stays: part of i
shop/web@c goes: the index that it is part of goes
shop/web@i stays: deployed by shop/web
shop/web@j goes: its tag goes: v2
shop/web@s stays: it refers to i
`,
		},
		{
			"another tag keeps a manifest", "old=a 40d; v1=a 3d", []Rule{{OlderThan: 30 * day}}, nil, `
shop/web:old goes: pushed 40d ago, 30d is the limit
shop/web:v1 stays: pushed 3d ago, 30d is the limit
shop/web@a stays: tagged v1
`,
		},
		{
			"signed", "v1=a 40d; v2=b 40d; v3=c 40d; s^a!; =s 40d; b.sig=x 40d", []Rule{{OlderThan: 30 * day, KeepSigned: true}}, nil, `
shop/web:b.sig stays: it belongs to b
shop/web:v1 stays: it is signed
shop/web:v2 stays: it is signed
shop/web:v3 goes: pushed 40d ago, 30d is the limit
shop/web@a stays: tagged v1
shop/web@b stays: tagged v2
shop/web@c goes: its tag goes: v3
shop/web@s stays: it refers to a
shop/web@x stays: tagged b.sig
`,
		},
		{
			"referrers go with their subject, young ones too", "v1=a 40d; s^a; =s 1d; a.att=x 1d; c^s; =c 1d", []Rule{{OlderThan: 30 * day}}, nil, `
shop/web:a.att goes: its subject goes
shop/web:v1 goes: pushed 40d ago, 30d is the limit
shop/web@a goes: its tag goes: v1
shop/web@c goes: its subject goes
shop/web@s goes: its subject goes
shop/web@x goes: its tag goes: a.att
`,
		},
		{
			"those without a subject wait a day for it", "s^b; =s 2d; x^b; =x 0d; b.sig=c 2d; v1=a 1d", []Rule{{Tags: []string{"v*"}, Keep: 3}}, nil, `
shop/web:b.sig goes: its subject is not there
shop/web:v1 stays: one of the 3 newest
shop/web@a stays: tagged v1
shop/web@b stays: no rule is about manifests without a tag
shop/web@c goes: its tag goes: b.sig
shop/web@s goes: its subject is not there
shop/web@x stays: its subject may yet be pushed
`,
		},
		{
			"an index that refers to what it holds stays as it is", "i>a; i^a", []Rule{{OlderThan: day}}, nil, `
shop/web@a stays: part of i
shop/web@i stays: it refers to a
`,
		},
		{
			"manifests without a tag", "=a 40d; =b 3d; latest=c 90d", []Rule{{Tags: []string{"latest"}}, {Untagged: 7 * day}}, nil, `
shop/web:latest stays: rule 1 keeps it
shop/web@a goes: it has no tag, and was pushed 40d ago
shop/web@b stays: it has no tag, 7d is the limit
shop/web@c stays: tagged latest
`,
		},
		{
			"patterns that stay", "v1=a 40d; v1-lts=b 40d", []Rule{{OlderThan: 30 * day, KeepTags: []string{"*-lts"}}}, nil, `
shop/web:v1 goes: pushed 40d ago, 30d is the limit
shop/web:v1-lts stays: rule 1 keeps tags like it
shop/web@a goes: its tag goes: v1
shop/web@b stays: tagged v1-lts
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			tags, ms := shelf(t, "shop/web", test.shelf)
			// b of the orphans is nobody's manifest.
			if strings.Contains(test.name, "without a subject") {
				ms = slices.DeleteFunc(ms, func(m store.Manifest) bool { return m.Digest == sum("b") })
				test.want = strings.Replace(test.want, "shop/web@b stays: no rule is about manifests without a tag\n", "", 1)
			}
			if diff := cmp.Diff(strings.TrimPrefix(test.want, "\n"), printed(Decide(test.rules, tags, ms, test.needed, today))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A signature may be kept in another repository than what it signs.
func TestSignaturesElsewhere(t *testing.T) {
	tags, ms := shelf(t, "shop/web", "v1=a 400d")
	tags2, ms2 := shelf(t, "signatures", "a.sig=x 400d; s^a; =s 400d")
	got := printed(Decide([]Rule{{Repositories: []string{"signatures"}, Tags: []string{"none"}, Keep: 1}}, append(tags, tags2...), append(ms, ms2...), nil, today))
	if strings.Contains(got, "goes") {
		t.Error(got)
	}
}

func TestVersionsInOrder(t *testing.T) {
	want := []string{"v0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc", "1", "v1.2.3", "1.10", "2.0.0"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortStableFunc(got, func(a, b string) int {
		v, _ := tender.VersionOf(a)
		w, _ := tender.VersionOf(b)
		return v.Compare(w)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, tag := range []string{"latest", "20261130", "main-12", "v1.2.3.4", "7f3c2d1"} {
		if _, is := tender.VersionOf(tag); is {
			t.Errorf("%s is no version", tag)
		}
	}
}

func FuzzDecide(f *testing.F) {
	f.Add(uint64(1), 1, 1)
	f.Fuzz(func(t *testing.T, seed uint64, keep, days int) {
		tags, ms := tangle(seed)
		steps := Decide([]Rule{{Keep: keep % 5, OlderThan: time.Duration(days%100) * day}}, tags, ms, map[string]string{sum("m1"): "needed"}, today)
		goes := map[string]bool{}
		for _, s := range steps {
			if s.Tag == "" {
				goes[s.Digest] = s.Goes
			}
		}
		if goes[sum("m1")] {
			t.Error("what is needed goes")
		}
		for _, s := range steps {
			if s.Tag != "" && !s.Goes && goes[s.Digest] {
				t.Errorf("%s names what goes", s)
			}
		}
		for _, m := range ms {
			for _, ref := range m.Refs {
				if !goes[m.Digest] && goes[ref.Digest] {
					t.Errorf("an index has a hole: %s", ref.Digest)
				}
			}
			if is, here := goes[m.Subject]; here && !is && goes[m.Digest] && m.Subject != m.Digest && m.Subject != "" {
				t.Errorf("what refers to %s goes", m.Subject)
			}
		}
	})
}

// tangle is a shelf with everything tied to everything.
func tangle(seed uint64) (tags []store.Tag, ms []store.Manifest) {
	next := func(n uint64) uint64 {
		seed = seed*6364136223846793005 + 1442695040888963407
		return (seed >> 33) % n
	}
	for i := range 12 {
		m := store.Manifest{Repository: "r", Digest: sum(fmt.Sprintf("m%d", i)), Pushed: today.AddDate(0, 0, -int(next(100)))}
		switch next(4) {
		case 0:
			m.Refs = append(m.Refs, store.ManifestRef{Kind: "child", Digest: sum(fmt.Sprintf("m%d", next(12)))})
		case 1:
			m.Subject = sum(fmt.Sprintf("m%d", next(14)))
		}
		ms = append(ms, m)
		if next(2) == 0 {
			tags = append(tags, store.Tag{Repository: "r", Tag: fmt.Sprintf("v%d", i), Digest: m.Digest, Pushed: m.Pushed})
		}
	}
	return tags, ms
}
