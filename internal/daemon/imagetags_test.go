package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
)

func tagging(q *quay) tagger {
	return tagger{remote: registry.NewRemote(registry.RemoteOptions{Transport: q}), locks: new(tagLocks)}
}

// moveAll moves what stands for a version, and prints what became of it.
func moveAll(t *testing.T, m tagger, tag string) string {
	t.Helper()
	c := m.remote.(*registry.Remote)
	from, err := c.Parse(t.Context(), dock+":"+tag)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Head(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := tender.VersionOf(tag)
	var lines []string
	for _, name := range movingTags(v) {
		one, err := m.move(t.Context(), from.At(d.Digest), from.At(name), v, tag)
		if err != nil {
			t.Fatal(err)
		}
		was := ""
		if one.Was != "" {
			was = " from " + one.Was
		}
		why, _, _ := strings.Cut(one.Why, ";")
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s%s %s", name, one.Outcome, was, why)))
	}
	return strings.Join(lines, "\n")
}

func digestAt(t *testing.T, m tagger, tag string) string {
	t.Helper()
	d, err := m.remote.Head(t.Context(), registry.Reference{Host: "registry.example.com", Repository: "shop/web", Tag: tag})
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

func TestMovingTagsGoForwardAndNeverBack(t *testing.T) {
	q := newQuay()
	m := tagging(q)
	for _, step := range []struct{ push, want string }{
		{"1.4.2", "1.4 tagged\n1 tagged\nlatest tagged"},
		{"1.4.3", "1.4 moved from 1.4.2\n1 moved from 1.4.2\nlatest moved from 1.4.2"},
		{"1.4.1", "1.4 stays it stands on 1.4.3, which is newer\n1 stays it stands on 1.4.3, which is newer\nlatest stays it stands on 1.4.3, which is newer"},
		{"2.0.0", "2.0 tagged\n2 tagged\nlatest moved from 1.4.3"},
		{"1.10.0", "1.10 tagged\n1 moved from 1.4.3\nlatest stays it stands on 2.0.0, which is newer"},
		{"1.9.9", "1.9 tagged\n1 stays it stands on 1.10.0, which is newer\nlatest stays it stands on 2.0.0, which is newer"},
		{"2.1.0-rc.1", "2.1 stays 2.1.0-rc.1 is no release: pre-releases and variants move nothing\n2 stays 2.1.0-rc.1 is no release: pre-releases and variants move nothing\nlatest stays 2.1.0-rc.1 is no release: pre-releases and variants move nothing"},
	} {
		q.push(t, dock+":"+step.push)
		if diff := cmp.Diff(step.want, moveAll(t, m, step.push)); diff != "" {
			t.Errorf("%s: - want, + is\n%s", step.push, diff)
		}
	}
	if diff := cmp.Diff("2.0 same\n2 same\nlatest same", moveAll(t, m, "2.0.0")); diff != "" {
		t.Error(diff)
	}
}

func TestMovingTagsStayOnWhatNobodyKnows(t *testing.T) {
	q := newQuay()
	m := tagging(q)
	unknown := q.push(t, dock+":latest")
	q.push(t, dock+":1.4.2")
	got := moveAll(t, m, "1.4.2")
	if !strings.Contains(got, "latest stays it stands on "+short(unknown)+", of which no tag says the version") {
		t.Error(got)
	}
	if digestAt(t, m, "latest") != unknown {
		t.Error("it has moved")
	}
}

// Whoever builds at the same time cannot be held up in another registry, but is seen.
func TestMovingTagsComeBackToWhatIsNewer(t *testing.T) {
	q := newQuay()
	m := tagging(q)
	q.push(t, dock+":1.4.1", dock+":1.4", dock+":1", dock+":latest")
	q.push(t, dock+":1.4.2")
	var once sync.Once
	var newer string
	q.before = func(req *http.Request) {
		if req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, "/manifests/1.4") {
			once.Do(func() { newer = q.push(t, dock+":1.4.3") }) // and it has moved 1.4 already
		}
	}
	if got := moveAll(t, m, "1.4.2"); !strings.HasPrefix(got, "1.4 stays 1.4.3 was pushed meanwhile and is newer") {
		t.Error(got)
	}
	if digestAt(t, m, "1.4") != newer {
		t.Error("1.4 is not 1.4.3")
	}
}

func TestManyBuildsLeaveTheNewest(t *testing.T) {
	q := newQuay()
	m := tagging(q)
	var all sync.WaitGroup
	for n := range 8 {
		q.push(t, fmt.Sprintf("%s:1.4.%d", dock, n))
	}
	for n := range 8 {
		all.Go(func() {
			ref := registry.Reference{Host: "registry.example.com", Repository: "shop/web", Tag: fmt.Sprintf("1.4.%d", n)}
			d, err := m.remote.Head(context.Background(), ref)
			if err != nil {
				t.Error(err)
				return
			}
			v, _ := tender.VersionOf(ref.Tag)
			if _, err := m.move(context.Background(), ref.At(d.Digest), ref.At("1.4"), v, ref.Tag); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if digestAt(t, m, "1.4") != digestAt(t, m, "1.4.7") {
		t.Error("1.4 is not 1.4.7")
	}
}

func TestTagsAreGivenAsTheyAreAskedFor(t *testing.T) {
	q := newQuay()
	m := tagging(q)
	one, two := q.push(t, dock+":1"), q.push(t, dock+":2")
	at := func(tag string) registry.Reference {
		return registry.Reference{Host: "registry.example.com", Repository: "shop/web"}.At(tag)
	}
	for _, step := range []struct{ digest, want string }{{one, api.TagNew}, {one, api.TagSame}, {two, api.TagMoved}, {one, api.TagMoved}} {
		got, err := m.put(t.Context(), at(step.digest), at("beside"))
		if err != nil || got.Outcome != step.want || digestAt(t, m, "beside") != step.digest {
			t.Errorf("%+v, %v, want %s", got, err, step.want)
		}
	}
	v, _ := tender.VersionOf("1.4.2")
	for _, name := range []string{"1.4.1", "1.5", "2"} {
		if _, err := m.move(t.Context(), at(one), at(name), v, "1.4.2"); tender.KindOf(err) != tender.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
