package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// loginIn is who logs in where.
type loginIn struct {
	Registry string `json:"registry"` // host or host:port
	User     string `json:"user"`
	Password string `json:"password"` // or a token; goes to the registry and the vault and nowhere else
}

// loginRoutes keep logins at registries. They serve every project, so only an
// administrator may change them.
func (h *handler) loginRoutes() {
	admin := rule{scope: Admin}
	add(h, admin, huma.Operation{OperationID: "logins", Method: http.MethodGet, Path: "/logins", Summary: "Logins at registries, never passwords"},
		func(ctx context.Context, _ *nothing) (*answer[[]Login], error) {
			return list(h.backend.Logins(ctx))
		})
	add(h, admin, huma.Operation{OperationID: "login", Method: http.MethodPost, Path: "/logins", Summary: "Log in at a registry and keep that, sealed"},
		func(ctx context.Context, in *struct{ Body loginIn }) (*answer[Login], error) {
			l := in.Body
			if l.Registry == "" || l.User == "" || l.Password == "" {
				return nil, tender.Errorf(tender.Invalid, "a login has a registry, a user and a password")
			}
			who, _ := PersonFrom(ctx)
			return one(h.backend.Login(ctx, who, l.Registry, l.User, l.Password))
		})
	add(h, admin, huma.Operation{OperationID: "logout", Method: http.MethodDelete, Path: "/logins", Summary: "Forget a login at a registry", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			Registry string `query:"registry" required:"true"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.Logout(ctx, who, in.Registry)
		})
}

// Logins is Backend's.
func (c *Client) Logins(ctx context.Context) ([]Login, error) {
	return get[[]Login](ctx, c, "/logins", nil)
}

// Login is Backend's.
func (c *Client) Login(ctx context.Context, registry, user, password string) (Login, error) {
	return post[Login](ctx, c, "/logins", loginIn{registry, user, password})
}

// Logout is Backend's.
func (c *Client) Logout(ctx context.Context, registry string) error {
	_, err := ask[nothing](ctx, c, call{method: http.MethodDelete, path: "/logins", query: url.Values{"registry": {registry}}})
	return err
}
