package scan

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenderhq/tender"
)

// Tokens of the right form and nobody's; put together here, so that no scanner of this
// repository takes them for real.
var (
	githubToken = "gh" + "p_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
	awsKey      = "AK" + "IAQ7D2M4ZK3XW5T6YB"
	stripeKey   = "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc"
)

func privateKey(t *testing.T) string {
	t.Helper()
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(i * 37)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	for len(der) < 100 { // as long as one of RSA or EC at least; nothing reads what follows
		der = append(der, seed[:]...)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func problemsOf(c Contents, kind string) string {
	var b strings.Builder
	for _, f := range c.Problems {
		if f.Kind == kind {
			fmt.Fprintf(&b, "%s %s %s %d: %s\n", f.Severity, f.ID, f.Path, f.Layer, f.Title)
		}
	}
	return b.String()
}

func TestSecretsInLayers(t *testing.T) {
	key := privateKey(t)
	c := read(t, saved(t, nil,
		made{"1", tarOf(t,
			"app/tls.key", "x\n"+key,
			"root/.aws/credentials", "[default]\naws_access_key_id = "+awsKey+"\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzW9dKq3LmN\n",
			"app/config.js", "const t = '"+githubToken+"'",
			"root/.npmrc", "//registry.npmjs.org/:_authToken=0a1b2c3d-4e5f-6789\n",
			"root/.netrc", "machine git.company.com login bob password hunter22\n",
			"root/.docker/config.json", `{"auths":{"r.company.com":{"auth":"Ym9iOmh1bnRlcjI="}}}`,
			"app/.env", "DEBUG=1\nDB_PASSWORD=hunter22hunter\nEMPTY_TOKEN=\nREF_TOKEN=${TOKEN}\nFILE_TOKEN=/run/secrets/x\n",
			"etc/shadow", "root:*:1::::::\nbob:$6$abcdefgh$0123456789abcdef:1::::::\n",
			"app/settings.yml", "api_key: 9f8d7c6b5a4e3d2c1b0a\nname: shop\npassword: short\n",
		)},
		made{"2", tarOf(t, "app/.wh.config.js", "")},
	))
	want := `critical secret/aws-secret-key root/.aws/credentials 0: A secret key of AWS in line 3: wJal….
critical secret/github-token app/config.js 0: A GitHub token in line 1: ghp_…. A later layer removes or replaces it; whoever has the image has it still.
high secret/aws-access-key root/.aws/credentials 0: An access key of AWS in line 2: AKIA….
high secret/docker-login root/.docker/config.json 0: A login for a registry in line 1: Ym9i….
high secret/netrc root/.netrc 0: A login in line 1: hu….
high secret/npmrc root/.npmrc 0: A login for npm in line 1: 0a1b….
high secret/private-key app/tls.key 0: A private key in line 3: MC4C….
medium secret/assignment app/.env 0: DB_PASSWORD is set in line 2: hun….
medium secret/assignment app/settings.yml 0: api_key is set in line 1: 9f8d….
medium secret/password-hash etc/shadow 0: The hash of a password in line 2: $6$a….
`
	if diff := cmp.Diff(want, problemsOf(c, tender.SecretLeft)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoSecretIsNotSaid(t *testing.T) {
	key := privateKey(t)
	c := read(t, saved(t, map[string]any{"Env": []string{"GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D", "POSTGRES_PASSWORD_FILE=/run/secrets/x", "PASSWORD=", "PATH=/bin"}},
		made{"RUN curl -o x https://example.com/a:b", tarOf(t,
			"usr/share/doc/openssl/key.pem", key,
			"app/tests/server.key", key,
			"usr/lib/node_modules/x/test/key.pem", key,
			"usr/lib/python3/ssl.py", "if '-----BEGIN PRIVATE KEY-----' in text and '-----END PRIVATE KEY-----' in text:\n",
			"app/README.md", "token: "+githubToken,
			"app/a.py", "AWS = 'AKIAIOSFODNN7EXAMPLE'",
			"app/.env.example", "DB_PASSWORD=hunter22hunter",
			"app/.env", "DB_PASSWORD=changeme\nAPI_TOKEN=<your token>\n",
			"etc/ssl/certs/ca.pem", "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n",
			"app/bin", "\x00\x01"+githubToken,
			"var/lib/dpkg/info/x.list", "/usr/share/x/snakeoil.key\n",
			"usr/share/x/snakeoil.key", key,
		)}))
	if got := problemsOf(c, tender.SecretLeft); got != "" {
		t.Error(got)
	}
}

// What is said of secrets never holds them, and neither do the steps.
func TestNoSecretIsInContents(t *testing.T) {
	secrets := []string{githubToken, awsKey, stripeKey, "hunter22hunter", "s3cretArgument", "passInURL1", "envPassw0rd", "labelT0ken" + stripeKey}
	c := read(t, saved(t, map[string]any{
		"Env":    []string{"DB_PASSWORD=envPassw0rd", "DATABASE_URL=postgres://bob:passInURL1@db/shop"},
		"Labels": map[string]string{"x": "labelT0ken " + stripeKey},
	},
		made{"ENV DB_PASSWORD=envPassw0rd", nil},
		made{"|1 API_TOKEN=s3cretArgument /bin/sh -c make", nil},
		made{"RUN |1 API_TOKEN=s3cretArgument /bin/sh -c curl -H 'Authorization: " + githubToken + "' https://bob:passInURL1@x.y/ # buildkit", tarOf(t, ".env", "DB_PASSWORD=hunter22hunter\nK="+awsKey+"\n")},
	))
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if strings.Contains(string(raw), s) {
			t.Errorf("%s is in it", s)
		}
	}
	want := `critical secret/github-token  0: A GitHub token in the history: ghp_…. Use build secrets, and secrets: of the service.
critical secret/stripe-key  -1: A live key of Stripe in the label x: sk_l…. Use build secrets, and secrets: of the service.
high secret/aws-access-key .env 0: An access key of AWS in line 2: AKIA….
high secret/environment  -1: DB_PASSWORD is set in the environment: en…. Use build secrets, and secrets: of the service.
high secret/environment  -1: API_TOKEN is set in the history: s3c…. Use build secrets, and secrets: of the service.
high secret/url  -1: A login in a URL in the environment: pa…. Use build secrets, and secrets: of the service.
high secret/url  0: A login in a URL in the history: pa…. Use build secrets, and secrets: of the service.
`
	if diff := cmp.Diff(want, problemsOf(c, tender.SecretLeft)); diff != "" {
		t.Error(diff)
	}
}

// The files of this machine's own packages hold no secrets.
func TestADistributionIsQuiet(t *testing.T) {
	n := 0
	for _, dir := range []string{"/usr/share/perl5", "/usr/share/python3", "/usr/share/bash-completion", "/etc/apt", "/etc/ssl", "/usr/lib/python3"} {
		_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(p, "/etc/ssl/private") || n > 5000 {
				return nil
			}
			text, err := os.ReadFile(p)
			if name := inside(p); err == nil && len(text) < maxSecretFile && !quiet(name) {
				n++
				for _, s := range secretsIn(name, text) {
					t.Errorf("%s: %s %s", p, s.rule, s.title)
				}
			}
			return nil
		})
	}
	if n == 0 {
		t.Skip("this machine has none of the folders")
	}
}
