package daemon

import (
	"context"
	"log/slog"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/engine"
	"github.com/tenderhq/tender/internal/forward"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/sample"
	"github.com/tenderhq/tender/internal/store"
	"github.com/tenderhq/tender/internal/vault"
)

var _ api.Backend = (*backend)(nil)

// backend answers the API by asking the rooms, and translates their nouns to
// the wire's: one file per noun.
type backend struct {
	config    Config
	version   string
	started   time.Time
	log       *slog.Logger
	store     *store.Store
	vault     *vault.Vault
	engine    engine.Engine
	inventory *engine.Inventory
	loop      *deploy.Loop
	board     *board
	keeper    *keeper
	logs      *logRoom       // nil: its store could not be opened, or logs are off
	sinks     *forward.Sinks // nil: none are configured, or there is no log room
	scaling   *scaling
	alerts    *alertRoom    // nil: its state could not be opened
	metered   *metricRoom   // nil: its store could not be opened, or metrics are off
	rules     *ruleRoom     // nil: there is no store of samples
	images    *registryRoom // nil: the registry is off
	layers    layers
	host      hostImages
	knowledge knowledge // of images, for the gate
	remote    *registry.Remote
	signers   signers
	tagLocks  tagLocks
	lookout   *lookout // asks registries for newer images
	scans     *scans
	promoting promoting
	// keepSamples hands a round to the store of samples; nil: there is none.
	keepSamples func(context.Context, sample.Round) error
	sampling    *sampling // nil: nothing is sampled
}

// picture is what was there a moment ago; Unavailable before the first look.
func (b *backend) picture() (tender.Picture, error) {
	p, _ := b.inventory.Picture()
	return b.looked(p)
}

// pictureNow is what is there as somebody asks, who may have done something just before: an engine
// is waited for as long as a person waits without wondering.
func (b *backend) pictureNow(ctx context.Context) (tender.Picture, error) {
	return b.looked(b.inventory.Since(ctx, time.Now(), lookPatience))
}

const lookPatience = time.Second

func (b *backend) looked(p tender.Picture) (tender.Picture, error) {
	if p.Taken.IsZero() {
		return p, tender.Errorf(tender.Unavailable, "the engine at %s has not answered yet", b.config.Engine).
			Hint("tender doctor checks the engine")
	}
	return p, nil
}

// note writes to the audit trail. What cannot be written there is logged: the
// deed itself was allowed and goes on.
func (b *backend) audit(ctx context.Context, who api.Person, what, project, detail string) {
	b.auditEnd(ctx, who, what, project, detail, nil)
}

func (b *backend) auditEnd(ctx context.Context, who api.Person, what, project, detail string, err error) {
	outcome := ""
	if err != nil {
		outcome = err.Error()
	}
	a := store.Audit{Time: time.Now(), Who: who.Name, What: what, Project: project, Detail: detail, Outcome: outcome}
	if b.logs != nil {
		b.logs.deed(a)
	}
	// Also when the asker is gone.
	if err := b.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.AddAudit(a) }); err != nil {
		b.log.Error("audit trail has a gap", "who", who.Name, "what", what, "project", project, "err", err)
	}
}

// Audit returns what was done, the newest last.
func (b *backend) Audit(ctx context.Context, project string, limit int) (out []api.Audit, err error) {
	err = b.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Audits(project, limit)
		for _, a := range list {
			out = append(out, api.Audit{Time: a.Time, Who: a.Who, What: a.What, Project: a.Project, Detail: a.Detail, Outcome: a.Outcome})
		}
		return err
	})
	return out, err
}

// Status says how the daemon itself is, and all projects as it saw them last: it answers where
// the engine does not.
func (b *backend) Status(ctx context.Context) (api.Status, error) {
	projects, err := b.projects(ctx)
	if err != nil {
		return api.Status{}, err
	}
	seen, _ := b.inventory.Picture()
	s := api.Status{
		Version: b.version, Started: b.started, Data: b.config.DataDir, Parts: b.board.all(),
		Engine: api.Engine{Host: b.config.Engine}, Taken: seen.Taken, Stale: seen.Stale, Projects: projects,
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if info, err := b.engine.Info(ctx); err == nil {
		s.Engine = api.Engine{
			Name: info.Name, Host: info.Host, Version: info.Version, API: info.API,
			OS: info.OS, Arch: info.Arch, Kernel: info.Kernel,
		}
	}
	return s, nil
}

// Doctor checks the host.
func (b *backend) Doctor(ctx context.Context) ([]api.Check, error) {
	out := doctor{b.config, b.engine, time.Now}.checks(ctx)
	seen, _ := b.inventory.Picture()
	out = append(out, b.layers.checks(ctx, b.engine.Sizes, seen.Instances)...)
	err := b.store.View(ctx, func(tx *store.Tx) error {
		names, err := tx.Projects()
		for _, name := range names {
			if err != nil {
				return err
			}
			var more []api.Check
			more, err = b.ephemeral(tx, name)
			out = append(out, more...)
		}
		return err
	})
	return out, err
}

// ephemeral warns of what a project keeps where it will be missed.
func (b *backend) ephemeral(tx *store.Tx, project string) (out []api.Check, err error) {
	g, err := tx.Head(project)
	if err != nil || g.Down != nil {
		return nil, err
	}
	for _, s := range g.Services {
		if s.Gone {
			continue
		}
		texts, err := compose.Ephemeral(s.Service.Spec, s.Image.Volumes, b.missing())
		if err != nil {
			return nil, err
		}
		for _, text := range texts {
			out = append(out, api.Check{Name: "data of " + project, Result: warning, Text: text})
		}
	}
	return out, nil
}

// Authenticate finds who holds a token.
func (b *backend) Authenticate(ctx context.Context, token string) (p api.Person, err error) {
	err = b.store.View(ctx, func(tx *store.Tx) error {
		t, err := tx.TokenOf(token, time.Now())
		if err == nil {
			p = api.Person{Name: "token " + t.Name, Scope: api.Scope(t.Scope), Projects: t.Projects}
		}
		return err
	})
	return p, err
}

// Tokens lists them without their secrets.
func (b *backend) Tokens(ctx context.Context) (out []api.Token, err error) {
	err = b.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Tokens()
		for _, t := range list {
			out = append(out, token(t, ""))
		}
		return err
	})
	return out, err
}

func token(t store.Token, secret string) api.Token {
	return api.Token{ID: t.ID, Name: t.Name, Scope: t.Scope, Projects: t.Projects, Created: t.Created, Expires: t.Expires, Secret: secret}
}

// CreateToken makes one; its secret is in the answer and nowhere else.
func (b *backend) CreateToken(ctx context.Context, who api.Person, name string, scope api.Scope, projects []string, valid time.Duration) (out api.Token, err error) {
	now := time.Now()
	t := store.Token{Name: name, Scope: string(scope), Projects: projects, Created: now}
	if valid > 0 {
		t.Expires = now.Add(valid)
	}
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		made, secret, err := tx.IssueToken(t)
		out = token(made, secret)
		return err
	})
	b.auditEnd(ctx, who, "token create", "", name+" ("+string(scope)+")", err)
	return out, err
}

// RemoveToken ends one.
func (b *backend) RemoveToken(ctx context.Context, who api.Person, id string) error {
	err := b.store.Update(ctx, func(tx *store.Tx) error { return tx.RemoveToken(id) })
	b.auditEnd(ctx, who, "token rm", "", id, err)
	return err
}
