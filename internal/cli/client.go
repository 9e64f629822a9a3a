package cli

import (
	"context"
	"io"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// client is what the commands ask of the control plane: api.Client.
type client interface {
	Status(ctx context.Context) (api.Status, error)
	Doctor(ctx context.Context) ([]api.Check, error)
	Projects(ctx context.Context) ([]api.Project, error)
	Project(ctx context.Context, project string) (api.Project, error)
	Instances(ctx context.Context, project string, all bool) ([]api.Instance, error)
	Config(ctx context.Context, project string, generation int) (string, error)
	Plan(ctx context.Context, s api.Submission) (api.Plan, error)
	Up(ctx context.Context, s api.Submission, report func(api.Event)) (api.Result, error)
	Change(ctx context.Context, project string, c api.Change, report func(api.Event)) (api.Result, error)
	History(ctx context.Context, project, service string) ([]api.Rollout, error)
	Rollout(ctx context.Context, id int64) (api.Rollout, error)
	Why(ctx context.Context, project, service string) (api.Why, error)
	Events(ctx context.Context, project string, report func(api.Event)) error
	Audit(ctx context.Context, project string, limit int) ([]api.Audit, error)
	Logs(ctx context.Context, project string, r api.LogRequest, line func(api.LogLine) error) error
	Stats(ctx context.Context, project string, services []string) ([]api.Sample, error)
	Top(ctx context.Context, project string, services []string) ([]api.Processes, error)
	Wait(ctx context.Context, t api.Target) (code int, err error)
	Exec(ctx context.Context, t api.Target, r api.ExecRequest) (api.Stream, error)
	Attach(ctx context.Context, t api.Target, stdin bool) (api.Stream, error)
	Run(ctx context.Context, project, service string, r api.ExecRequest, report func(api.Event)) (api.Stream, error)
	CopyFrom(ctx context.Context, t api.Target, path string) (io.ReadCloser, error)
	CopyTo(ctx context.Context, t api.Target, path string, tarball io.Reader) error
	Build(ctx context.Context, r api.BuildRequest, tarball io.Reader, report func(api.Event)) (id string, err error)
	Pull(ctx context.Context, ref, auth string, report func(api.Event)) error
	Images(ctx context.Context, refs []string) ([]api.Image, error)
	Push(ctx context.Context, ref, auth string, report func(api.Event)) error
	Secrets(ctx context.Context, project string) ([]api.Secret, error)
	Secret(ctx context.Context, project, name string) (api.Secret, error)
	SetSecret(ctx context.Context, project, name string, value []byte) (api.Secret, error)
	RemoveSecret(ctx context.Context, project, name string) error
	Tokens(ctx context.Context) ([]api.Token, error)
	CreateToken(ctx context.Context, name string, scope api.Scope, projects []string, valid time.Duration) (api.Token, error)
	RemoveToken(ctx context.Context, id string) error
}

// client returns the other end of the daemon at --host.
func (a *app) client() (client, error) {
	return nil, tender.Errorf(tender.Unavailable, "no Tender daemon answers at %s", a.host).Hint("start one: tender serve, or: systemctl start tender")
}
