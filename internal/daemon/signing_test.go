package daemon

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/policy"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
	"github.com/tenderhq/tender/internal/vault"
)

// signing is a daemon with a vault and a registry, and an engine that has an image of it.
func signing(t *testing.T, g policy.Gate) (b *backend, services []tender.Service, images map[string]tender.ImageID) {
	t.Helper()
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	v, _, err := vault.Init(t.Context(), st, vault.Options{KeyFile: filepath.Join(t.TempDir(), "key")})
	if err != nil {
		t.Fatal(err)
	}
	b = &backend{
		store: st, vault: v, board: new(board), log: slog.New(slog.DiscardHandler),
		config: Config{RegistryDir: filepath.Join(t.TempDir(), "registry"), Gate: g},
	}
	b.images = openRegistryRoom(b, b.log)
	t.Cleanup(func() { b.images.Close() })
	b.remote = b.registries(nil)
	b.knowledge.signers = b.signersOf
	digest := pushed(t, b, "shop/web", "1")
	id := tender.ImageID{Reference: "shop/web:1", ID: "sha256:" + strings.Repeat("1", 64), Digest: digest}
	b.engine = &shelf{id: id}
	services = []tender.Service{{Name: "web", Image: id.Reference, Spec: []byte("name: shop\nx-tender-format: 1\nservices: {web: {image: shop/web:1}}\n")}}
	return b, services, map[string]tender.ImageID{"web": id}
}

// pushed puts an image into the daemon's own registry.
func pushed(t *testing.T, b *backend, repository, tag string) (digest string) {
	t.Helper()
	ref := registry.Reference{Repository: repository, Tag: tag}
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	d, err := b.remote.PutBlob(t.Context(), ref, registry.Blob{MediaType: "application/vnd.oci.image.config.v1+json", Data: config})
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":%d,"digest":%q},"layers":[],"annotations":{"of":%q}}`, len(config), d, ref)
	if err := b.remote.Put(t.Context(), ref, []byte(raw), "application/vnd.oci.image.manifest.v1+json"); err != nil {
		t.Fatal(err)
	}
	is, err := b.remote.Head(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return is.Digest
}

func TestAGateAsksWhoSigned(t *testing.T) {
	b, services, images := signing(t, policy.Gate{Sign: []string{"release"}})
	ann := api.Person{Name: "ann", Scope: api.Admin}
	ask := func(want string) {
		t.Helper()
		all, err := b.judge(t.Context(), question{project: "shop", services: services, images: images})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, v := range all {
			got += fmt.Sprintf("%s %v: %s: %s\n", v.Rule, v.Deny, v.Why, v.Fix)
		}
		if got != want {
			t.Errorf("the gate says\n%swant\n%s", got, want)
		}
	}
	ask("gate/signature true: the key release, which must have signed it, is not in the vault: tender image key create release, or tender image key import release cosign.pub\n")
	for _, name := range []string{"release", "team"} {
		if k, err := b.AddImageKey(t.Context(), ann, api.ImageKeyNew{Name: name}); err != nil || !k.Signs {
			t.Fatalf("%+v, %v", k, err)
		}
	}
	const unsigned = "gate/signature true: the key release did not sign it: tender image sign shop/web:1 --key release\n"
	ask(unsigned)
	if _, err := b.SignImage(t.Context(), ann, api.ImageSign{Reference: "shop/web:1", Key: "team"}); err != nil {
		t.Fatal(err)
	}
	ask("gate/signature true: the key release did not sign it, only team: tender image sign shop/web:1 --key release\n")
	s, err := b.SignImage(t.Context(), ann, api.ImageSign{Reference: "shop/web:1", Key: "release", Annotations: map[string]string{"build": "42"}})
	if err != nil || s.Digest != images["web"].Digest || len(s.Signatures) != 2 || s.Signatures[0].By != "ann" {
		t.Fatalf("signed %+v, %v", s, err)
	}
	ask("")

	// What was signed stays so, whether its registry answers or not.
	if err := b.images.Close(); err != nil {
		t.Fatal(err)
	}
	ask("")
	b.signers.mu.Lock()
	clear(b.signers.seen)
	b.signers.mu.Unlock()
	ask("gate/signature true: nobody can say whether the key release signed it: the daemon is stopping: again in a moment\n")

	// A key that is made anew under the same name did not sign anything.
	if err := b.RemoveImageKey(t.Context(), ann, "release", false); tender.KindOf(err) != tender.Conflict {
		t.Errorf("remove a key that a gate asks for: %v", err)
	}
	if err := b.RemoveImageKey(t.Context(), ann, "release", true); err != nil {
		t.Fatal(err)
	}
	b.images = openRegistryRoom(b, b.log)
	if _, err := b.AddImageKey(t.Context(), ann, api.ImageKeyNew{Name: "release"}); err != nil {
		t.Fatal(err)
	}
	ask("gate/signature true: the key release did not sign it, only team: tender image sign shop/web:1 --key release\n")
}

// The gate looks in other registries, too, and denies with the reason where one does not answer.
func TestAGateAsksOtherRegistries(t *testing.T) {
	b, services, images := signing(t, policy.Gate{Sign: []string{"release"}})
	if _, err := b.AddImageKey(t.Context(), api.Person{Name: "ann"}, api.ImageKeyNew{Name: "release"}); err != nil {
		t.Fatal(err)
	}
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path == "/v2/" {
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(other.Close)
	id := images["web"]
	id.Reference = strings.TrimPrefix(other.URL, "http://") + "/shop/web:1"
	images["web"] = id
	all, err := b.judge(t.Context(), question{project: "shop", services: services, images: images})
	if err != nil || len(all) != 1 || !strings.Contains(all[0].Why, "nobody can say whether the key release signed it: ") || !strings.Contains(all[0].Fix, "tender registry login") {
		t.Errorf("%+v, %v", all, err)
	}
	if asked == 0 {
		t.Error("the other registry was not asked")
	}
}

func TestKeysOfImages(t *testing.T) {
	b, _, _ := signing(t, policy.Gate{})
	ann := api.Person{Name: "ann", Scope: api.Admin}
	made, err := b.AddImageKey(t.Context(), ann, api.ImageKeyNew{Name: "release"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ExportImageKey(t.Context(), ann, "release", ""); tender.KindOf(err) != tender.Invalid {
		t.Errorf("export without a password: %v", err)
	}
	text, err := b.ExportImageKey(t.Context(), ann, "release", "open")
	if err != nil || !strings.HasPrefix(text, "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----") {
		t.Fatalf("export: %q, %v", text, err)
	}
	for name, c := range map[string]struct {
		n    api.ImageKeyNew
		kind tender.Kind
	}{
		"again":           {api.ImageKeyNew{Name: "release"}, tender.Conflict},
		"wrong password":  {api.ImageKeyNew{Name: "copy", Key: text, Password: "opens"}, tender.Denied},
		"no key":          {api.ImageKeyNew{Name: "copy", Key: "text"}, tender.Invalid},
		"another name":    {api.ImageKeyNew{Name: "copy", Key: text, Password: "open"}, tender.Conflict},
		"its public half": {api.ImageKeyNew{Name: "copy", Key: made.Public}, tender.Conflict},
		"no name":         {api.ImageKeyNew{Name: "a b"}, tender.Invalid},
	} {
		if _, err := b.AddImageKey(t.Context(), ann, c.n); tender.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.RemoveImageKey(t.Context(), ann, "release", false); err != nil {
		t.Fatal(err)
	}
	if k, err := b.AddImageKey(t.Context(), ann, api.ImageKeyNew{Name: "release", Key: text, Password: "open"}); err != nil || k.Fingerprint != made.Fingerprint || !k.Signs {
		t.Errorf("import %+v, %v", k, err)
	}
	vendor, err := registry.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if k, err := b.AddImageKey(t.Context(), ann, api.ImageKeyNew{Name: "public", Key: string(vendor.Public())}); err != nil || k.Signs {
		t.Errorf("import the public half: %+v, %v", k, err)
	}
	if _, err := b.SignImage(t.Context(), ann, api.ImageSign{Reference: "shop/web:1", Key: "public"}); tender.KindOf(err) != tender.Conflict {
		t.Errorf("sign with a public half: %v", err)
	}
	// A token for another project may not sign in this repository, although the daemon could.
	for _, who := range []api.Person{{Name: "x", Scope: api.Deploy, Projects: []string{"blog"}}, {Name: "x", Scope: api.Read}} {
		if _, err := b.SignImage(t.Context(), who, api.ImageSign{Reference: "shop/web:1", Key: "release"}); tender.KindOf(err) != tender.Denied {
			t.Errorf("%v: %v", who, err)
		}
	}
	if _, err := b.VerifyImage(t.Context(), api.Person{Name: "x", Scope: api.Read, Projects: []string{"blog"}}, api.ImageVerify{Reference: "shop/web:1"}); tender.KindOf(err) != tender.Denied {
		t.Errorf("verify what may not be pulled: %v", err)
	}
	if _, err := b.SignImage(t.Context(), ann, api.ImageSign{Reference: "shop/web:1", Key: "relaese"}); tender.KindOf(err) != tender.NotFound || tender.AdviceOf(err) != "did you mean: release" {
		t.Errorf("a key that is none: %v", err)
	}
	shop := api.Person{Name: "ci", Scope: api.Deploy, Projects: []string{"shop"}}
	if _, err := b.SignImage(t.Context(), shop, api.ImageSign{Reference: "shop/web:1", Key: "release"}); err != nil {
		t.Error(err)
	}
	got, err := b.VerifyImage(t.Context(), shop, api.ImageVerify{Reference: "shop/web:1", Keys: []string{"release"}})
	if err != nil || !got.Verified || len(got.Missing) != 0 || got.Signatures[0].By != "ci" {
		t.Errorf("verified %+v, %v", got, err)
	}
	if _, err := b.AddImageKey(t.Context(), ann, api.ImageKeyNew{Name: "qa"}); err != nil {
		t.Fatal(err)
	}
	got, err = b.VerifyImage(t.Context(), shop, api.ImageVerify{Reference: "shop/web:1", Keys: []string{"release", "qa"}})
	if err != nil || got.Verified || strings.Join(got.Missing, " ") != "qa" {
		t.Errorf("verified %+v, %v", got, err)
	}
	// No key shows among the secrets of projects.
	if list, err := b.Secrets(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("secrets %+v, %v", list, err)
	}
	var said []string
	if err := b.store.View(t.Context(), func(tx *store.Tx) error {
		all, err := tx.Audits("", 100)
		for _, a := range all {
			said = append(said, a.What+" "+a.Detail+" "+a.Outcome)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(said, "\n"); strings.Contains(text, "PRIVATE") || !strings.Contains(text, "image key export release") {
		t.Errorf("the audit says:\n%s", text)
	}
}

// Whoever may build sees what the build sees: that must be no key, and no login.
func TestABuildGetsNoKeyThatSigns(t *testing.T) {
	b, _, _ := signing(t, policy.Gate{})
	if _, err := b.AddImageKey(t.Context(), api.Person{Name: "root", Scope: api.Admin}, api.ImageKeyNew{Name: "release"}); err != nil {
		t.Fatal(err)
	}
	got, err := b.buildSecrets(t.Context(), ann, api.BuildRequest{Project: keysProject, External: map[string]string{"k": "release"}})
	if tender.KindOf(err) != tender.Invalid || len(got) != 0 {
		t.Errorf("a build got %d secrets, %v", len(got), err)
	}
	if got, err := b.value(t.Context(), keysProject, tender.SecretFile{Name: "release", Version: 1}); tender.KindOf(err) != tender.Invalid || got != nil {
		t.Errorf("a service got it: %v", err)
	}
}
