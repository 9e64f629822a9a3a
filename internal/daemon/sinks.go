package daemon

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"go.yaml.in/yaml/v4"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/forward"
	"github.com/tenderhq/tender/internal/store"
)

// makeSinks introduces the sinks to the store of logs, the vault and the store; nil
// where none are configured.
func (b *backend) makeSinks(log *slog.Logger) *forward.Sinks {
	if len(b.config.Sinks) == 0 {
		return nil
	}
	return forward.New(b.config.Sinks, forward.Options{
		Source: b.logs.store, Keeper: cursors{b.store}, Host: nodeName(), Log: log,
		Secret: b.secretForAll,
	})
}

// secretForAll opens a secret that is no project's own. NotFound: there is none.
func (b *backend) secretForAll(ctx context.Context, name string) ([]byte, error) {
	newest, err := b.vault.Newest(ctx, "", name)
	if tender.KindOf(err) == tender.NotFound {
		return nil, tender.Errorf(tender.NotFound, "there is no secret %q for all projects", name).Hint("set it: tender secret set %s", name)
	}
	if err != nil {
		return nil, err
	}
	return b.vault.Open(ctx, "", name, newest.Version)
}

// sinksWith are the sinks that need a secret, and the registry where it does.
func sinksWith(c Config, project, name string) (out []string) {
	for _, s := range c.Sinks {
		if project == "" && slices.Contains(s.Secrets, name) {
			out = append(out, "sink "+s.Name)
		}
	}
	if b := c.RegistryStorage; b != nil && project == "" && b.Key == name {
		out = append(out, "registry.storage")
	}
	return out
}

// cursors keeps in the store how far sinks have come.
type cursors struct{ store *store.Store }

var _ forward.Keeper = cursors{}

// Load is forward.Keeper's.
func (c cursors) Load(ctx context.Context, name string) (out forward.State, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		s, known, err := tx.Sink(name)
		out = forward.State{Known: known, Cursor: s.Cursor, Sent: s.Sent, Bytes: s.Bytes, Failed: s.Failed, Refused: s.Refused, Expired: s.Expired}
		return err
	})
	return out, err
}

// Save is forward.Keeper's.
func (c cursors) Save(ctx context.Context, name string, s forward.State, dead []forward.Letter) error {
	letters := make([]store.DeadLetter, 0, len(dead))
	for _, d := range dead {
		letters = append(letters, store.DeadLetter{Time: d.Time, Logged: d.Row, Labels: d.Labels, Text: d.Text, Reason: d.Reason})
	}
	return c.store.Update(ctx, func(tx *store.Tx) error {
		return tx.PutSink(store.Sink{Name: name, Cursor: s.Cursor, Sent: s.Sent, Bytes: s.Bytes, Failed: s.Failed, Refused: s.Refused, Expired: s.Expired}, letters)
	})
}

// Sinks says how each fares.
func (b *backend) Sinks(context.Context) ([]api.Sink, error) {
	if b.sinks == nil {
		if b.logs == nil && len(b.config.Sinks) > 0 {
			return nil, b.noStore()
		}
		return nil, nil
	}
	var out []api.Sink
	for _, s := range b.sinks.Status(time.Now()) {
		out = append(out, api.Sink{
			Name: s.Name, Kind: s.Kind, Where: s.Where, Phase: s.Phase, Lag: s.Lag.Seconds(), Rows: s.Rows, Waiting: s.Waiting,
			Sent: s.Sent, Bytes: s.Bytes, Failed: s.Failed, Refused: s.Refused, Expired: s.Expired, Tries: s.Tries, Next: s.Next.UTC(), Last: s.Last.UTC(),
			Error: s.Error, ErrorTime: s.ErrorTime.UTC(),
		})
	}
	return out, nil
}

// DeadLetters are what a sink refused for good.
func (b *backend) DeadLetters(ctx context.Context, sink string, limit int) (out []api.DeadLetter, err error) {
	if !slices.ContainsFunc(b.config.Sinks, func(c forward.Config) bool { return c.Name == sink }) {
		return nil, tender.Errorf(tender.NotFound, "there is no sink %q", sink).Hint("tender logs sinks lists them")
	}
	err = b.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.DeadLetters(sink, limit)
		for _, d := range list {
			out = append(out, api.DeadLetter{Time: d.Time, Logged: d.Logged, Labels: d.Labels, Text: d.Text, Reason: d.Reason})
		}
		return err
	})
	return out, err
}

func setSinks(c *Config, v string) error {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(v), &n); err != nil || n.Kind == 0 {
		return err
	}
	return treeSinks(c, &n)
}

func treeSinks(c *Config, n *yaml.Node) (err error) {
	c.Sinks, err = forward.Parse(n)
	return err
}
