package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// SecretIn names a secret.
type SecretIn struct {
	SomeProjectIn
	Name string `path:"name" maxLength:"128" pattern:"^[a-zA-Z0-9._-]+$"`
}

func (h *handler) secretRoutes() {
	read, change := rule{scope: Read}, rule{scope: Deploy}
	add(h, read, huma.Operation{
		OperationID: "secrets", Method: http.MethodGet, Path: "/secrets", Summary: "Names and versions of secrets, never values",
		Description: "Without a project: those for all projects.",
	},
		func(ctx context.Context, in *SomeProjectIn) (*answer[[]Secret], error) {
			return list(h.backend.Secrets(ctx, in.Project))
		})
	add(h, read, huma.Operation{OperationID: "secret", Method: http.MethodGet, Path: "/secrets/{name}", Summary: "What may be known of one secret"},
		func(ctx context.Context, in *SecretIn) (*answer[Secret], error) {
			return one(h.backend.Secret(ctx, in.Project, in.Name))
		})
	add(h, change, huma.Operation{
		OperationID: "set-secret", Method: http.MethodPut, Path: "/secrets/{name}", Summary: "Give a secret a value",
		Description: "The body is the value, byte for byte. The same value again makes no new version.", MaxBodyBytes: MaxSecret,
	},
		func(ctx context.Context, in *struct {
			SecretIn
			RawBody []byte `contentType:"application/octet-stream"`
		},
		) (*answer[Secret], error) {
			who, _ := PersonFrom(ctx)
			// The buffer is used again for other requests.
			return one(h.backend.SetSecret(ctx, who, in.Project, in.Name, slices.Clone(in.RawBody)))
		})
	add(h, change, huma.Operation{OperationID: "remove-secret", Method: http.MethodDelete, Path: "/secrets/{name}", Summary: "Remove a secret that nothing uses", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *SecretIn) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.RemoveSecret(ctx, who, in.Project, in.Name)
		})
}

// tokenIn is a token that is asked for.
type tokenIn struct {
	Name     string        `json:"name"`
	Scope    Scope         `json:"scope"` // read, deploy, admin
	Projects []string      `json:"projects,omitempty"`
	Valid    time.Duration `json:"valid,omitempty"` // nanoseconds; 0: without end
}

func (h *handler) tokenRoutes() {
	admin := rule{scope: Admin}
	add(h, admin, huma.Operation{OperationID: "tokens", Method: http.MethodGet, Path: "/tokens", Summary: "All tokens, without what they say"},
		func(ctx context.Context, _ *nothing) (*answer[[]Token], error) {
			return list(h.backend.Tokens(ctx))
		})
	add(h, admin, huma.Operation{OperationID: "create-token", Method: http.MethodPost, Path: "/tokens", Summary: "Make a token; this is the only time that it is shown", DefaultStatus: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body tokenIn }) (*answer[Token], error) {
			t := in.Body
			if err := t.check(); err != nil {
				return nil, err
			}
			who, _ := PersonFrom(ctx)
			return one(h.backend.CreateToken(ctx, who, t.Name, t.Scope, t.Projects, t.Valid))
		})
	add(h, admin, huma.Operation{OperationID: "remove-token", Method: http.MethodDelete, Path: "/tokens/{id}", Summary: "Remove a token", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			ID string `path:"id" maxLength:"128"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.RemoveToken(ctx, who, in.ID)
		})
}

func (t tokenIn) check() error {
	if t.Name == "" || len(t.Name) > 128 {
		return tender.Errorf(tender.Invalid, "name: a token has a name of 1 to 128 characters")
	}
	if !slices.Contains(scopes, t.Scope) {
		return tender.Errorf(tender.Invalid, "scope: %q is none of %s", t.Scope, fmt.Sprint(scopes))
	}
	if t.Valid < 0 {
		return tender.Errorf(tender.Invalid, "valid: a token cannot be valid for %s", t.Valid)
	}
	for _, p := range t.Projects {
		if !projectName.MatchString(p) {
			return tender.Errorf(tender.Invalid, "projects: %q is no name of a project", p)
		}
	}
	return nil
}
