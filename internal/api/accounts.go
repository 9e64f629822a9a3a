package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// RegistryGrant allows actions in the repositories that match.
type RegistryGrant struct {
	Repositories string   `json:"repositories"` // shop/web, shop/*, team/**
	Actions      []string `json:"actions"`      // pull, push, delete
}

// RegistryAccess is what a user of the registry may do.
type RegistryAccess struct {
	Admin  bool            `json:"admin,omitempty"` // everything everywhere
	Grants []RegistryGrant `json:"grants,omitempty"`
}

// RegistryUser is what may be known of one.
type RegistryUser struct {
	Name    string          `json:"name"`
	Robot   bool            `json:"robot"` // it has a token instead of a password
	Admin   bool            `json:"admin"`
	Grants  []RegistryGrant `json:"grants"`
	Made    time.Time       `json:"made"`
	Who     string          `json:"who"`
	Expires time.Time       `json:"expires,omitzero"`
	Used    time.Time       `json:"used,omitzero"`    // to the hour
	Secret  string          `json:"secret,omitempty"` // a robot's token, once
}

// RegistryUserNew is one to be made.
type RegistryUserNew struct {
	RegistryAccess
	Name     string        `json:"name"`
	Robot    bool          `json:"robot,omitempty"`
	Password string        `json:"password,omitempty"` // not of a robot
	Valid    time.Duration `json:"valid,omitempty"`    // nanoseconds; 0: for good
}

// RegistryImport is an htpasswd file with bcrypt hashes, and what its users may do.
type RegistryImport struct {
	RegistryAccess
	Text string `json:"text"`
}

type passwordIn struct {
	Password string `json:"password"`
}

// accountRoutes say who may use the registry: an administrator's.
func (h *handler) accountRoutes() {
	admin := rule{scope: Admin}
	add(h, admin, huma.Operation{OperationID: "registryUsers", Method: http.MethodGet, Path: "/registry/users", Summary: "Users of the registry, never passwords"},
		func(ctx context.Context, _ *nothing) (*answer[[]RegistryUser], error) {
			return list(h.backend.RegistryUsers(ctx))
		})
	add(h, admin, huma.Operation{OperationID: "addRegistryUser", Method: http.MethodPost, Path: "/registry/users", Summary: "Make a user of the registry; a robot's token is in the answer, once"},
		func(ctx context.Context, in *struct{ Body RegistryUserNew }) (*answer[RegistryUser], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.AddRegistryUser(ctx, who, in.Body))
		})
	add(h, admin, huma.Operation{OperationID: "importRegistryUsers", Method: http.MethodPost, Path: "/registry/import", Summary: "Take over an htpasswd file, all of it or nothing"},
		func(ctx context.Context, in *struct{ Body RegistryImport }) (*answer[[]RegistryUser], error) {
			who, _ := PersonFrom(ctx)
			return list(h.backend.ImportRegistryUsers(ctx, who, in.Body))
		})
	add(h, admin, huma.Operation{OperationID: "grantRegistryUser", Method: http.MethodPut, Path: "/registry/users/{name}/access", Summary: "Say what a user of the registry may do"},
		func(ctx context.Context, in *struct {
			Name string `path:"name" maxLength:"128"`
			Body RegistryAccess
		},
		) (*answer[RegistryUser], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.GrantRegistryUser(ctx, who, in.Name, in.Body))
		})
	add(h, admin, huma.Operation{OperationID: "passwordRegistryUser", Method: http.MethodPut, Path: "/registry/users/{name}/password", Summary: "Set the password of a user of the registry"},
		func(ctx context.Context, in *struct {
			Name string `path:"name" maxLength:"128"`
			Body passwordIn
		},
		) (*answer[RegistryUser], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.PasswordRegistryUser(ctx, who, in.Name, in.Body.Password))
		})
	add(h, admin, huma.Operation{OperationID: "removeRegistryUser", Method: http.MethodDelete, Path: "/registry/users/{name}", Summary: "Remove a user of the registry", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			Name string `path:"name" maxLength:"128"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.RemoveRegistryUser(ctx, who, in.Name)
		})
}

// RegistryUsers is Backend's.
func (c *Client) RegistryUsers(ctx context.Context) ([]RegistryUser, error) {
	return get[[]RegistryUser](ctx, c, "/registry/users", nil)
}

// AddRegistryUser is Backend's.
func (c *Client) AddRegistryUser(ctx context.Context, u RegistryUserNew) (RegistryUser, error) {
	return post[RegistryUser](ctx, c, "/registry/users", u)
}

// ImportRegistryUsers is Backend's.
func (c *Client) ImportRegistryUsers(ctx context.Context, i RegistryImport) ([]RegistryUser, error) {
	return post[[]RegistryUser](ctx, c, "/registry/import", i)
}

// GrantRegistryUser is Backend's.
func (c *Client) GrantRegistryUser(ctx context.Context, name string, access RegistryAccess) (RegistryUser, error) {
	return c.putUser(ctx, pathf("/registry/users/%s/access", name), access)
}

// PasswordRegistryUser is Backend's.
func (c *Client) PasswordRegistryUser(ctx context.Context, name, password string) (RegistryUser, error) {
	return c.putUser(ctx, pathf("/registry/users/%s/password", name), passwordIn{password})
}

func (c *Client) putUser(ctx context.Context, path string, body any) (u RegistryUser, err error) {
	r, err := jsonCall(http.MethodPut, path, nil, body)
	if err != nil {
		return u, err
	}
	return ask[RegistryUser](ctx, c, r)
}

// RemoveRegistryUser is Backend's.
func (c *Client) RemoveRegistryUser(ctx context.Context, name string) error {
	_, err := ask[nothing](ctx, c, call{method: http.MethodDelete, path: pathf("/registry/users/%s", name)})
	return err
}
