package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
)

// hub is how the default registry is called where logins are kept.
const hub = "docker.io"

// login is what is in X-Registry-Auth.
type login struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

func readAuth(header string) (login, error) {
	var l login
	raw, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		return l, fmt.Errorf("not base64: %w", err)
	}
	return l, json.Unmarshal(raw, &l)
}

// logins answers BuildKit when a registry wants to know who asks. It does not
// fetch tokens itself: BuildKit then does, with these credentials.
type logins struct {
	auth.UnimplementedAuthServer
	byHost map[string]login
}

func newLogins(headers map[string]string) (*logins, error) {
	l := &logins{byHost: map[string]login{}}
	for host, header := range headers {
		one, err := readAuth(header)
		if err != nil {
			return nil, fmt.Errorf("the login for %s: %w", host, err)
		}
		l.byHost[host] = one
	}
	return l, nil
}

// Register implements the session's Attachable.
func (l *logins) Register(s *grpc.Server) { auth.RegisterAuthServer(s, l) }

// Credentials implements auth.AuthServer; none is no error: the image may be public.
func (l *logins) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := r.Host
	if host == "registry-1.docker.io" {
		host = hub
	}
	one := l.byHost[host]
	if one.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: one.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: one.Username, Secret: one.Password}, nil
}
