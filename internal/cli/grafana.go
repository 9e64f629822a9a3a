package cli

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// provisioned is where Grafana looks for what it is given.
const provisioned = "/etc/grafana/provisioning"

const grafanaSources = `# Data sources of Grafana, made by tender metrics grafana.
# TENDER_TOKEN is a token with the scope read: tender token create grafana --scope read
apiVersion: 1
datasources:
  - name: Tender metrics
    uid: %[1]s
    type: prometheus
    access: proxy
    url: %[3]s
    editable: false
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      timeInterval: 15s
      httpHeaderName1: Authorization
    secureJsonData:
      httpHeaderValue1: Bearer ${TENDER_TOKEN}
  - name: Tender logs
    uid: %[2]s
    type: loki
    access: proxy
    url: %[3]s
    editable: false
    jsonData:
      maxLines: 1000
      httpHeaderName1: Authorization
    secureJsonData:
      httpHeaderValue1: Bearer ${TENDER_TOKEN}
`

const grafanaProvider = `# Dashboards of Grafana, made by tender metrics grafana.
apiVersion: 1
providers:
  - name: Tender
    folder: Tender
    type: file
    allowUiUpdates: false
    options:
      path: %s/dashboards/tender
`

// entry is a file of what Grafana is given.
type entry struct {
	path string
	text []byte
}

// grafanaFiles are all of them; address is that of the daemon as Grafana sees it.
func grafanaFiles(address string) ([]entry, error) {
	out := []entry{
		{"datasources/tender.yaml", fmt.Appendf(nil, grafanaSources, metricsSource, logsSource, address)},
		{"dashboards/tender.yaml", fmt.Appendf(nil, grafanaProvider, provisioned)},
	}
	for _, b := range boards() {
		var text bytes.Buffer
		e := json.NewEncoder(&text)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(b.json()); err != nil {
			return nil, fmt.Errorf("write the dashboard %s: %w", b.title, err)
		}
		out = append(out, entry{"dashboards/tender/" + strings.TrimPrefix(b.uid, "tender-") + ".json", text.Bytes()})
	}
	return out, nil
}

func (a *app) metricsGrafana() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "grafana [flags] [DIR]",
		Short: "Write data sources and dashboards for Grafana",
		Long: `Writes what Grafana calls provisioning: two data sources (metrics, logs) and four dashboards (host, project,
service, edge) into DIR, which is to be mounted or copied to ` + provisioned + `. Without DIR it is written
to stdout as a tar archive. Grafana asks with a token of the scope read, from its environment: TENDER_TOKEN.`,
		Example: `  tender token create grafana --scope read
  tender metrics grafana ./provisioning
  docker run --network host -e TENDER_TOKEN -v ./provisioning:` + provisioned + ` grafana/grafana
  tender metrics grafana | tar -x -C ` + provisioned,
		Args: args(0, 1, "one DIR at most"),
		RunE: func(c *cobra.Command, words []string) error {
			if address == "" {
				address = "http://127.0.0.1:7070"
				if p, err := a.where(); err == nil && strings.HasPrefix(p.host, "http") {
					address = strings.TrimSuffix(p.host, "/")
				}
			}
			if u, err := url.Parse(address); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.ContainsAny(address, "\n\"'") {
				return misuse("such as http://192.0.2.7:7070", "--url %q is no address that Grafana could ask", address)
			}
			files, err := grafanaFiles(address)
			if err != nil {
				return err
			}
			if len(words) == 0 {
				if isTerminal(a.Out) {
					return misuse("tender metrics grafana ./provisioning, or: tender metrics grafana | tar -x -C DIR", "metrics grafana: where to?")
				}
				return writeTar(tar.NewWriter(a.Out), files)
			}
			dir := words[0]
			if !filepath.IsAbs(dir) {
				dir = filepath.Join(a.Dir, dir)
			}
			if err := writeFiles(dir, files); err != nil {
				return fmt.Errorf("metrics grafana: %w", err)
			}
			for _, f := range files {
				fmt.Fprintln(a.Out, filepath.Join(words[0], f.path))
			}
			a.note("Grafana finds them at %s; it asks %s with the token in its TENDER_TOKEN", provisioned, address)
			return nil
		},
	}
	c.Flags().StringVar(&address, "url", "", "`address` of the daemon as Grafana sees it (default http://127.0.0.1:7070, or what --host says)")
	return c
}

func writeTar(t *tar.Writer, files []entry) error {
	now := time.Now().Truncate(time.Second) // a tar has whole ones, and rounds
	seen := map[string]bool{}
	for _, f := range files {
		for at, r := range f.path {
			if dir := f.path[:at]; r == '/' && !seen[dir] {
				seen[dir] = true
				if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: now}); err != nil {
					return err
				}
			}
		}
		if err := t.WriteHeader(&tar.Header{Name: f.path, Mode: 0o644, Size: int64(len(f.text)), ModTime: now}); err != nil {
			return err
		}
		if _, err := t.Write(f.text); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeFiles(dir string, files []entry) error {
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && bytes.Equal(old, f.text) {
			continue
		}
		if err := os.WriteFile(path, f.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
