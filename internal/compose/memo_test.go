package compose_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender/internal/compose"
)

func TestMemoKeepsTheLastOnes(t *testing.T) {
	m := compose.NewMemo(100)
	made := 0
	ask := func(text string) {
		t.Helper()
		got, err := m([]byte(text), func() (string, error) { made++; return "of " + text, nil })
		if err != nil || got != "of "+text {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	ask("a")
	ask("a")
	if made != 1 {
		t.Errorf("made %d times, want once", made)
	}
	// Many others push out what nobody asks for, and not what is asked for.
	for n := range 50 {
		ask(fmt.Sprintf("another text %d", n))
		ask("a")
	}
	if made != 51 {
		t.Errorf("made %d times, want 51", made)
	}
	ask("another text 0")
	if made != 52 {
		t.Errorf("what was pushed out is kept: made %d times", made)
	}
	// What is larger than all of it, and what fails, is not kept.
	for range 2 {
		ask(strings.Repeat("x", 101))
		if _, err := m([]byte("bad"), func() (string, error) { made++; return "", errors.New("no") }); err == nil {
			t.Error("no error")
		}
	}
	if made != 56 {
		t.Errorf("made %d times, want 56", made)
	}
}

// Whoever changes what he was given must not change what the next one gets.
func TestWhatIsKeptStaysAsItWas(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("name: shop\nservices: {web: {image: nginx, ports: ['8080:80'], x-tender: {publish: proxy}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := compose.Load(t.Context(), compose.Source{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	p, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	before := p.Services[0]
	p.Services[0].Name = "changed"
	spec, err := compose.Spec(before.Spec)
	if err != nil {
		t.Fatal(err)
	}
	delete(spec.Services, "web")
	spec.Name = "changed"
	if _, err := compose.Hold(before, true); err != nil {
		t.Fatal(err)
	}
	again, err := compose.Parse([]byte(d.YAML))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, again.Services[0]); diff != "" {
		t.Errorf("-before +now:\n%s", diff)
	}
	if spec, err = compose.Spec(before.Spec); err != nil || spec.Name != "shop" || len(spec.Services) != 1 || len(spec.Services["web"].Expose) != 1 {
		t.Errorf("%+v, %v", spec, err)
	}
}
