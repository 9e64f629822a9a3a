package docker

import (
	"errors"
	"strings"

	"github.com/distribution/reference"

	tender "github.com/tenderhq/tender"
)

// registryOf is the host of a reference's registry, docker.io where it names none.
func registryOf(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.Domain(named)
}

// registryError says which registry refused, and with which command that is mended.
func registryError(err error, host, doing string) error {
	if err == nil {
		return nil
	}
	out := wrap(err, "%s", doing)
	own, ok := errors.AsType[*tender.Error](out)
	if !ok {
		return out
	}
	text := err.Error()
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("unauthorized", "denied", "authentication required", "no basic auth credentials", "401 Unauthorized", "incorrect username or password"):
		return tender.Errorf(tender.Denied, "%s: the registry %s refuses: %w", doing, host, error(answer{err})).
			Hint("check the name, or log in: tender registry login %s -u USER --password-stdin", host)
	case has("toomanyrequests", "429 Too Many Requests"):
		return tender.Errorf(tender.Unavailable, "%s: the registry %s gives no more for now: %w", doing, host, error(answer{err})).
			Hint("wait, or log in for a higher limit: tender registry login %s -u USER --password-stdin", host)
	case has("no such host", "connection refused", "i/o timeout", "Client.Timeout", "network is unreachable", "deadline exceeded"):
		own.Kind = tender.Unavailable
		return own.Hint("the registry %s cannot be reached from the engine's host: check its network, or load the image: docker load -i FILE", host)
	case has("server gave HTTP response to HTTPS client"):
		own.Kind = tender.Invalid
		return own.Hint("the registry %s speaks no TLS: give it a certificate, or name it under insecure-registries in the engine's daemon.json", host)
	case has("manifest unknown", "not found"):
		own.Kind = tender.NotFound
		return own.Hint("check the image's name and tag")
	}
	return out
}
