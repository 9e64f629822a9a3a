package cli

import (
	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
)

// client returns the other end of the daemon at --host. It does not connect yet.
func (a *app) client() (*api.Client, error) {
	c, err := api.New(a.host, api.ClientOptions{Token: a.getenv("TENDER_TOKEN")})
	if err != nil {
		return nil, misuse(tender.AdviceOf(err), "--host: %v", err)
	}
	return c, nil
}
