package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
)

// maxSalvage bounds what is read of one file: more was never accepted.
const maxSalvage = 4 << 20

// salvage reads the configs and secrets of a revision back from where deliver
// has put them, after the store was lost. A secret goes into the vault again, as
// the version that it gets there.
func (b *backend) salvage(ctx context.Context, project string, s tender.Service) (out deploy.Salvaged, err error) {
	out = deploy.Salvaged{Files: map[string][]byte{}, Versions: map[string]int{}}
	below := filepath.Join(project, s.Name, s.Revision)
	for _, f := range s.Configs {
		content, err := readWhole(filepath.Join(b.config.DataDir, "configs", below, f.Source))
		if err != nil || sum(content) != f.SHA256 {
			out.Lost = append(out.Lost, fmt.Sprintf("the content of config %s of %s", f.Source, s.Name))
			continue
		}
		out.Files[f.SHA256] = content
	}
	for _, f := range s.Secrets {
		value, err := readWhole(filepath.Join(b.config.RunDir, "secrets", below, f.Source))
		if err != nil {
			lost := fmt.Sprintf("the value of secret %s of %s", f.Source, s.Name)
			if f.External {
				lost += " (tender secret set " + f.Name + ")"
			}
			out.Lost = append(out.Lost, lost)
			continue
		}
		v, _, err := b.vault.Put(ctx, "tender", owner(project, f), f.Name, value)
		if err != nil {
			return out, err
		}
		out.Versions[f.Source] = v.Version
	}
	return out, nil
}

func readWhole(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSalvage+1))
}

func sum(content []byte) string {
	s := sha256.Sum256(content)
	return hex.EncodeToString(s[:])
}
