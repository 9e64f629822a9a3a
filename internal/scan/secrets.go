package scan

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tenderhq/tender"
)

const (
	maxSecretFile  = 1 << 20 // text with a secret in it is small
	maxSecrets     = 5000
	maxSecretsFile = 20
)

// secret is one that was seen: never its value.
type secret struct {
	rule     string
	severity tender.Severity
	title    string // A GitHub token in line 3: ghp_…
}

// form is an expression that is compiled once it is needed: most processes never scan.
func form(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// tokens are secrets that are known by their form. Each is looked for only where its
// word is in the text.
var tokens = []struct {
	rule     string
	severity tender.Severity
	title    string
	word     string
	form     func() *regexp.Regexp // its first group is the secret
}{
	{"private-key", tender.High, "A private key", "PRIVATE KEY", form(`-----BEGIN (?:(?:RSA|EC|DSA|OPENSSH|PGP) )?PRIVATE KEY(?: BLOCK)?-----(?:\\n|\\r|\s)+(?:[A-Za-z-]+: [^\n]*\s+)*((?:[A-Za-z0-9+/=]|\\n|\\r|\s){100,})-----END`)},
	{"private-key", tender.Medium, "A private key, locked with a password", "ENCRYPTED PRIVATE KEY", form(`-----BEGIN ENCRYPTED PRIVATE KEY-----(?:\\n|\s)+((?:[A-Za-z0-9+/=]|\\n|\s){100,})-----END`)},
	{"age-key", tender.High, "A private key of age", "AGE-SECRET-KEY-1", form(`\b(AGE-SECRET-KEY-1[0-9A-Z]{58})\b`)},
	{"aws-access-key", tender.High, "An access key of AWS", "AKIA", form(`\b(AKIA[A-Z2-7]{16})\b`)},
	{"aws-access-key", tender.High, "A temporary access key of AWS", "ASIA", form(`\b(ASIA[A-Z2-7]{16})\b`)},
	{"aws-secret-key", tender.Critical, "A secret key of AWS", "aws", form(`(?i)\baws_?secret_?(?:access_?)?key["']?\s*[=:]\s*["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)`)},
	{"aws-secret-key", tender.Critical, "A secret key of AWS", "AWS", form(`\bAWS_SECRET_(?:ACCESS_)?KEY["']?\s*[=:]\s*["']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)`)},
	{"github-token", tender.Critical, "A GitHub token", "gh", form(`\b(gh[pousr]_[A-Za-z0-9]{36,255})\b`)},
	{"github-token", tender.Critical, "A GitHub token", "github_pat_", form(`\b(github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b`)},
	{"gitlab-token", tender.Critical, "A GitLab token", "gl", form(`\b(gl(?:pat|rt|dt|ptt|cbt)-[A-Za-z0-9_-]{20,60})\b`)},
	{"slack-token", tender.High, "A Slack token", "xox", form(`\b(xox[abeoprs]-[0-9]{8,}-[0-9A-Za-z-]{12,})`)},
	{"slack-webhook", tender.Medium, "A Slack webhook", "hooks.slack.com", form(`hooks\.slack\.com/services/(T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,})`)},
	{"stripe-key", tender.Critical, "A live key of Stripe", "k_live_", form(`\b([sr]k_live_[A-Za-z0-9]{20,})\b`)},
	{"google-key", tender.High, "A key of Google's APIs", "AIza", form(`\b(AIza[0-9A-Za-z_-]{35})(?:[^0-9A-Za-z_-]|$)`)},
	{"google-secret", tender.High, "A client secret of Google", "GOCSPX-", form(`\b(GOCSPX-[A-Za-z0-9_-]{28})`)},
	{"npm-token", tender.Critical, "A token of npm", "npm_", form(`\b(npm_[A-Za-z0-9]{36})\b`)},
	{"pypi-token", tender.Critical, "A token of PyPI", "pypi-AgE", form(`\b(pypi-AgE[A-Za-z0-9_-]{50,})`)},
	{"docker-token", tender.Critical, "A token of Docker Hub", "dckr_pat_", form(`\b(dckr_pat_[A-Za-z0-9_-]{27})`)},
	{"sendgrid-key", tender.High, "A key of SendGrid", "SG.", form(`\b(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})\b`)},
}

// files with secrets are known by their name.
var secretFiles = []struct {
	is       func(name, base string) bool
	rule     string
	severity tender.Severity
	title    string
	form     func() *regexp.Regexp
}{
	{base(".npmrc"), "npmrc", tender.High, "A login for npm", form(`(?m)(?:_authToken|_auth|_password)\s*=\s*["']?([^\s"'$][^\s"']{7,})`)},
	{base(".pypirc"), "pypirc", tender.High, "A login for PyPI", form(`(?m)^\s*password\s*[=:]\s*([^\s%$][^\s]{3,})`)},
	{base(".netrc", "_netrc"), "netrc", tender.High, "A login", form(`(?m)\bpassword\s+(\S{4,})`)},
	{base(".git-credentials"), "git-credentials", tender.High, "A login for Git", form(`(?m)^https?://[^:/\s]*:([^@\s]{4,})@`)},
	{func(name, base string) bool {
		return base == "config.json" && path.Base(path.Dir(name)) == ".docker" || base == ".dockercfg" || base == ".dockerconfigjson"
	}, "docker-login", tender.High, "A login for a registry", form(`"(?:auth|identitytoken|registrytoken)"\s*:\s*"([A-Za-z0-9+/=._-]{8,})"`)},
	{func(name, base string) bool {
		return base == "config" && path.Base(path.Dir(name)) == ".kube" || base == "kubeconfig"
	}, "kubeconfig", tender.High, "A login for Kubernetes", form(`(?m)^\s*(?:client-key-data|token|password):\s*["']?([A-Za-z0-9+/=._-]{8,})`)},
	{func(name, _ string) bool { return name == "etc/shadow" }, "password-hash", tender.Medium, "The hash of a password", form(`(?m)^[a-z_][a-z0-9_-]*:(\$[0-9a-z]+\$[^:]{8,}):`)},
	{base(".htpasswd"), "password-hash", tender.Medium, "The hash of a password", form(`(?m)^[^:#\s]+:(\$[0-9a-z]+\$[^:\s]{8,}|\{SHA\}[^:\s]{8,})`)},
}

func base(names ...string) func(_, base string) bool {
	return func(_, base string) bool { return slices.Contains(names, base) }
}

// quiet says whether what looks like a secret is there to be read: documentation and
// tests. What a distribution brought is left out later.
func quiet(name string) bool {
	for _, dir := range []string{"usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/zoneinfo/", "usr/share/perl", "usr/local/go/src/", "proc/", "sys/"} {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	for part := range strings.SplitSeq(strings.ToLower(path.Dir(name)), "/") {
		switch part {
		case "test", "tests", "testing", "testdata", "test-data", "test_data", "__tests__", "spec", "fixtures", "example", "examples", "sample", "samples", "docs", "demo", "demos":
			return true
		}
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".md", ".rst", ".html", ".htm", ".svg", ".css", ".map", ".pub", ".crt", ".po", ".pyc", ".pot", ".h", ".hpp":
		return true
	}
	b := strings.ToLower(path.Base(name))
	return strings.HasPrefix(b, "readme") || strings.HasPrefix(b, "changelog") || strings.HasSuffix(b, "_test.go") || strings.HasPrefix(b, "test_") ||
		strings.Contains(b, ".test.") || strings.Contains(b, ".spec.") || strings.Contains(b, "example") || strings.Contains(b, "sample")
}

// lookForSecrets reads a small text.
func (r *reading) lookForSecrets(l *layer, name string, size int64, body *bufio.Reader) error {
	if size < 16 || size > maxSecretFile || r.secrets > maxSecrets || quiet(name) {
		return nil
	}
	start, err := body.Peek(int(min(size, 512)))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.IndexByte(start, 0) >= 0 {
		return nil
	}
	if r.held += size; r.held > r.limits.Bytes/4 {
		return nil
	}
	r.buf.Reset()
	if _, err := io.Copy(&r.buf, io.LimitReader(body, size)); err != nil {
		return err
	}
	t := r.buf.Bytes()
	if bytes.IndexByte(t, 0) >= 0 {
		return nil
	}
	found := secretsIn(name, t)
	if r.secrets += len(found); len(found) > 0 {
		if r.secrets > maxSecrets {
			r.cutf("more than %d secrets: the rest is not listed", maxSecrets)
		}
		l.at(name).secrets = found
	}
	return nil
}

// secretsIn finds the secrets of a text that lies under a name.
func secretsIn(name string, t []byte) (out []secret) {
	add := func(rule string, severity tender.Severity, title string, at int, value string) {
		if len(out) < maxSecretsFile {
			out = append(out, secret{rule, severity, fmt.Sprintf("%s in line %d: %s", title, 1+bytes.Count(t[:at], []byte("\n")), masked(value))})
		}
	}
	for _, k := range tokens {
		if !bytes.Contains(t, []byte(k.word)) {
			continue
		}
		for _, m := range k.form().FindAllSubmatchIndex(t, maxSecretsFile) {
			v := string(t[m[2]:m[3]])
			if isExample(v) || k.rule == "private-key" && !isKey(v) {
				continue
			}
			severity := k.severity
			if strings.Contains(name, "snakeoil") {
				severity = tender.Medium // made by the package ssl-cert, for want of a real one
			}
			add(k.rule, severity, k.title, m[2], v)
		}
	}
	b := path.Base(name)
	for _, k := range secretFiles {
		if !k.is(name, b) {
			continue
		}
		for _, m := range k.form().FindAllSubmatchIndex(t, maxSecretsFile) {
			if v := string(t[m[2]:m[3]]); !isPlaceholder(v) && !slices.ContainsFunc(out, func(s secret) bool { return strings.HasSuffix(s.title, ": "+masked(v)) }) {
				add(k.rule, k.severity, k.title, m[2], v)
			}
		}
	}
	if env := isEnvFile(b); (env || isConfigFile(name, b)) && len(out) == 0 {
		for _, m := range assignment().FindAllSubmatchIndex(t, 1000) {
			k, v := string(t[m[2]:m[3]]), strings.Trim(string(t[m[4]:m[5]]), `"',; `)
			if !isSecretName(k) || isPlaceholder(v) || len(v) < 6 {
				continue
			}
			if !env && (len(v) < 16 || len(v) > 200 || entropy(v) < 3.5 || !strings.ContainsAny(v, "0123456789") || strings.ContainsAny(v, " /.(){}<>$%:@")) {
				continue
			}
			add("assignment", tender.Medium, k+" is set", m[4], v)
		}
	}
	return out
}

var assignment = form(`(?m)^[ \t]*(?:export[ \t]+)?["']?([A-Za-z][A-Za-z0-9_.-]{1,80})["']?[ \t]*[:=][ \t]*([^\n#]{4,400})$`)

func isEnvFile(base string) bool {
	return base == ".env" || strings.HasPrefix(base, ".env.") && !strings.HasSuffix(base, ".dist") && !strings.HasSuffix(base, ".template") ||
		strings.HasSuffix(base, ".env") && base != ".env"
}

// isConfigFile says whether a file is the configuration of an application: one of the
// distribution, or of a library, is not.
func isConfigFile(name, base string) bool {
	if strings.HasPrefix(name, "usr/share/") || strings.HasPrefix(name, "usr/lib/") || strings.HasPrefix(name, "lib/") || strings.HasPrefix(name, "var/lib/") ||
		strings.Contains(name, "node_modules/") || strings.Contains(name, "site-packages/") || strings.Contains(name, "dist-packages/") || strings.Contains(name, "/gems/") || strings.Contains(name, "vendor/") {
		return false
	}
	switch path.Ext(base) {
	case ".ini", ".conf", ".cfg", ".properties", ".yaml", ".yml", ".toml", ".json":
		return !strings.Contains(base, "lock") && base != "package.json"
	}
	return false
}

var secretName = form(`(?i)(?:^|[_.-]|[a-z])(?:password|passwd|passphrase|pwd|secret|secret_?key|token|api_?key|apikey|private_?key|access_?key|credentials?|auth_?key|encryption_?key|master_?key)$`)

func isSecretName(k string) bool {
	return secretName().MatchString(k) && !strings.EqualFold(k, "pwd") && !strings.EqualFold(k, "oldpwd")
}

// isPlaceholder says whether a value stands for another, or for none.
func isPlaceholder(v string) bool {
	low := strings.ToLower(v)
	switch low {
	case "", "null", "none", "nil", "true", "false", "yes", "no", "password", "secret", "token", "changeme", "change-me", "change_me", "example", "dummy", "redacted", "undefined", "random", "auto", "disabled", "enabled", "required", "optional", "prompt":
		return true
	}
	if strings.ContainsAny(v, "${}<>") && (strings.HasPrefix(v, "$") && !strings.Contains(v[1:], "$") || strings.Contains(v, "${") || strings.Contains(v, "{{") || strings.HasPrefix(v, "<") || strings.HasPrefix(v, "{")) {
		return true
	}
	return strings.HasPrefix(v, "/") || strings.HasPrefix(low, "file:") || strings.HasPrefix(low, "vault:") || strings.HasPrefix(low, "your") ||
		strings.Contains(low, "example") || strings.Contains(low, "placeholder") || strings.Contains(low, "changeme") || strings.Trim(low, "x*.-_") == "" || strings.HasPrefix(low, "xxx")
}

// isExample says whether a token is one of those that documentation is full of.
func isExample(v string) bool {
	up := strings.ToUpper(v)
	return strings.Contains(up, "EXAMPLE") || strings.Contains(up, "XXXXX") || len(v) >= 16 && entropy(v) < 2.5
}

// isKey says whether text between the lines of a key is one: source code has the lines, too.
func isKey(v string) bool {
	v = strings.NewReplacer(`\n`, "", `\r`, "", "\n", "", "\r", "", " ", "", "\t", "").Replace(v)
	v, _, _ = strings.Cut(v, "=")
	raw, err := base64.RawStdEncoding.DecodeString(v[:len(v)&^3])
	return err == nil && len(raw) >= 48 && entropy(v) > 4
}

// entropy is that of the bytes of a text, in bits: random base64 has more than 4.
func entropy(s string) (bits float64) {
	var n [256]int
	for i := range len(s) {
		n[s[i]]++
	}
	for _, c := range n {
		if c > 0 {
			p := float64(c) / float64(len(s))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// masked shows enough of a secret to find it, and too little to use it.
func masked(v string) string {
	v = clean(v)
	return strings.ToValidUTF8(v[:min(4, len(v)/4)], "") + "…"
}

// leaks says which secrets lie in a layer. What a package of the distribution brought is
// known to everybody; under /etc it may have been changed since.
func (r *reading) leaks(l *layer, no int, layers []*layer) (out []tender.Finding) {
	for _, p := range sortedNames(l.files) {
		f := l.files[p]
		if len(f.secrets) == 0 {
			continue
		}
		own := slices.ContainsFunc(layers, func(l *layer) bool { return has(l.owned, hashOf(usr(p))) })
		if own && !strings.HasPrefix(p, "etc/") {
			continue
		}
		after := ""
		for _, later := range layers[no+1:] {
			if later.hides(p) {
				after = " A later layer removes or replaces it; whoever has the image has it still."
				break
			}
		}
		for _, s := range f.secrets {
			out = append(out, tender.Finding{Kind: tender.SecretLeft, ID: "secret/" + s.rule, Severity: s.severity, Title: s.title + "." + after, Path: p, Layer: no})
		}
	}
	return out
}

// words are what an image's configuration says in plain text: its environment, and how
// it was built.
type words struct {
	findings []tender.Finding
	values   []string // that are secret: the longest first
}

// mask takes the secrets out of a text that is shown.
func (w words) mask(s string) string {
	for _, v := range w.values {
		s = strings.ReplaceAll(s, v, masked(v))
	}
	return s
}

var (
	setInHistory = form(`\b([A-Za-z][A-Za-z0-9_]{1,80})=("[^"]*"|'[^']*'|[^\s"';&|)]+)`)
	userInURL    = form(`\b[a-z][a-z0-9+.-]{1,20}://([^\s/:@"']*):([^\s/@"']{3,})@`)
)

func (c *config) words() (w words) {
	seen := map[string]bool{}
	add := func(rule string, s tender.Severity, layer int, title, value string) {
		if len(w.values) < 1000 && !slices.Contains(w.values, value) {
			w.values = append(w.values, value)
		}
		if key := rule + title; !seen[key] && len(w.findings) < 200 {
			seen[key] = true
			w.findings = append(w.findings, tender.Finding{Kind: tender.SecretLeft, ID: "secret/" + rule, Severity: s, Title: title, Layer: layer})
		}
	}
	known := func(text, where string, layer int) {
		for _, k := range tokens {
			if !strings.Contains(text, k.word) {
				continue
			}
			for _, m := range k.form().FindAllStringSubmatch(text, 10) {
				if !isExample(m[1]) {
					add(k.rule, k.severity, layer, fmt.Sprintf("%s in %s: %s. Use build secrets, and secrets: of the service.", k.title, where, masked(m[1])), m[1])
				}
			}
		}
		for _, m := range userInURL().FindAllStringSubmatch(text, 10) {
			if pass, err := url.PathUnescape(m[2]); err == nil && !isPlaceholder(pass) {
				add("url", tender.High, layer, fmt.Sprintf("A login in a URL in %s: %s. Use build secrets, and secrets: of the service.", where, masked(pass)), m[2])
			}
		}
	}
	named := func(k, v, where string, layer int) bool {
		if !isSecretName(k) || isPlaceholder(v) || len(v) < 4 {
			return false
		}
		add("environment", tender.High, layer, fmt.Sprintf("%s is set in %s: %s. Use build secrets, and secrets: of the service.", k, where, masked(v)), v)
		return true
	}
	env := map[string]bool{}
	for _, e := range c.Config.Env {
		k, v, _ := strings.Cut(e, "=")
		if named(k, v, "the environment", -1) {
			env[k+v] = true
			continue
		}
		known(e, "the environment", -1)
	}
	no := -1
	for _, h := range c.History {
		if !h.EmptyLayer {
			no++
		}
		layer := no
		if h.EmptyLayer {
			layer = -1
		}
		for _, m := range setInHistory().FindAllStringSubmatch(h.CreatedBy, 50) {
			v := strings.Trim(m[2], `"'`)
			if !env[m[1]+v] && !strings.HasPrefix(v, "`") {
				named(m[1], v, "the history", layer)
			}
		}
		known(h.CreatedBy, "the history", layer)
	}
	for k, v := range c.Config.Labels {
		known(v, "the label "+short(clean(k)), -1)
	}
	slices.SortFunc(w.values, func(a, b string) int { return len(b) - len(a) })
	return w
}

// withoutUser takes the login out of a URL.
func withoutUser(raw string) string {
	return userInURL().ReplaceAllStringFunc(raw, func(m string) string {
		scheme, _, _ := strings.Cut(m, "://")
		return scheme + "://"
	})
}
