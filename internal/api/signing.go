package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tenderhq/tender"
)

// ImageKey is a key that signs images, or verifies signatures alone.
type ImageKey struct {
	Name        string    `json:"name"`
	Kind        string    `json:"kind"`  // ECDSA P-256
	Signs       bool      `json:"signs"` // its private half is in the vault
	Public      string    `json:"public"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the public half, base64
	Created     time.Time `json:"created"`
	Who         string    `json:"who,omitempty"`
	Gates       []string  `json:"gates,omitempty"` // of the configuration that ask for it
}

// ImageKeyNew makes a key, or imports one.
type ImageKeyNew struct {
	Name     string `json:"name"`
	Key      string `json:"key,omitempty"`      // PEM: a cosign.key or cosign.pub; "": a key is made
	Password string `json:"password,omitempty"` // opens Key
}

// ImageSign says what to sign.
type ImageSign struct {
	Reference   string            `json:"reference"`
	Key         string            `json:"key"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Auth        string            `json:"auth,omitempty"` // X-Registry-Auth, from the user's docker config
}

// ImageVerify says whose signatures to look for.
type ImageVerify struct {
	Reference string   `json:"reference"`
	Keys      []string `json:"keys,omitempty"` // all of them must have signed; none: any of those in the vault
	Auth      string   `json:"auth,omitempty"`
}

// ImageSignatures is who signed an image.
type ImageSignatures struct {
	Reference  string           `json:"reference"`
	Digest     string           `json:"digest"`
	Signatures []ImageSignature `json:"signatures"`
	// Missing are keys that were asked for and did not sign.
	Missing []string `json:"missing,omitempty"`
	// Others counts signatures of keys that are not among those asked about.
	Others   int      `json:"others,omitempty"`
	Problems []string `json:"problems,omitempty"` // what is damaged, or of another image
	Before   bool     `json:"before,omitempty"`   // of sign: it was signed before, nothing was added
	Verified bool     `json:"verified"`
}

// ImageSignature is one that holds.
type ImageSignature struct {
	Key         string            `json:"key"`
	By          string            `json:"by,omitempty"` // who signed, where Tender did
	At          time.Time         `json:"at,omitzero"`
	Form        string            `json:"form"` // tag, bundle: where cosign looks for it
	Annotations map[string]string `json:"annotations,omitempty"`
}

// imageKeyExport opens a private key's door once more.
type imageKeyExport struct {
	Password string `json:"password"` // that opens what is exported
}

type imageKeyText struct {
	Key string `json:"key"`
}

// signingRoutes: a key serves all projects. Whoever may deploy may sign; keys are an admin's.
func (h *handler) signingRoutes() {
	admin := rule{scope: Admin}
	add(h, rule{scope: Read, own: true}, huma.Operation{OperationID: "imageKeys", Method: http.MethodGet, Path: "/images/keys", Summary: "The keys that sign images or verify signatures, without private halves"},
		func(ctx context.Context, _ *nothing) (*answer[[]ImageKey], error) {
			return list(h.backend.ImageKeys(ctx))
		})
	add(h, admin, huma.Operation{OperationID: "addImageKey", Method: http.MethodPost, Path: "/images/keys", Summary: "Make a key, or import one"},
		func(ctx context.Context, in *struct{ Body ImageKeyNew }) (*answer[ImageKey], error) {
			who, _ := PersonFrom(ctx)
			return one(h.backend.AddImageKey(ctx, who, in.Body))
		})
	add(h, admin, huma.Operation{OperationID: "exportImageKey", Method: http.MethodPost, Path: "/images/keys/{name}/export", Summary: "The private half of a key as a cosign.key, which the password opens"},
		func(ctx context.Context, in *struct {
			Name string `path:"name" maxLength:"128"`
			Body imageKeyExport
		},
		) (*answer[imageKeyText], error) {
			who, _ := PersonFrom(ctx)
			text, err := h.backend.ExportImageKey(ctx, who, in.Name, in.Body.Password)
			return one(imageKeyText{text}, err)
		})
	add(h, admin, huma.Operation{OperationID: "removeImageKey", Method: http.MethodDelete, Path: "/images/keys/{name}", Summary: "Remove a key", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			Name  string `path:"name" maxLength:"128"`
			Force bool   `query:"force" doc:"also when a gate asks for it"`
		},
		) (*nothing, error) {
			who, _ := PersonFrom(ctx)
			return &nothing{}, h.backend.RemoveImageKey(ctx, who, in.Name, in.Force)
		})
	add(h, rule{scope: Deploy, own: true}, huma.Operation{OperationID: "signImage", Method: http.MethodPost, Path: "/images/sign", Summary: "Sign the digest that a reference names"},
		func(ctx context.Context, in *struct{ Body ImageSign }) (*answer[ImageSignatures], error) {
			if in.Body.Reference == "" || in.Body.Key == "" {
				return nil, tender.Errorf(tender.Invalid, "reference and key: both are needed")
			}
			who, _ := PersonFrom(ctx)
			return one(h.backend.SignImage(ctx, who, in.Body))
		})
	add(h, rule{scope: Read, own: true}, huma.Operation{OperationID: "verifyImage", Method: http.MethodPost, Path: "/images/verify", Summary: "Who signed an image"},
		func(ctx context.Context, in *struct{ Body ImageVerify }) (*answer[ImageSignatures], error) {
			if in.Body.Reference == "" {
				return nil, tender.Errorf(tender.Invalid, "reference: no image is named")
			}
			who, _ := PersonFrom(ctx)
			return one(h.backend.VerifyImage(ctx, who, in.Body))
		})
}

// ImageKeys is Backend's.
func (c *Client) ImageKeys(ctx context.Context) ([]ImageKey, error) {
	return get[[]ImageKey](ctx, c, "/images/keys", nil)
}

// AddImageKey is Backend's.
func (c *Client) AddImageKey(ctx context.Context, k ImageKeyNew) (ImageKey, error) {
	return post[ImageKey](ctx, c, "/images/keys", k)
}

// ExportImageKey is Backend's.
func (c *Client) ExportImageKey(ctx context.Context, name, password string) (string, error) {
	out, err := post[imageKeyText](ctx, c, pathf("/images/keys/%s/export", name), imageKeyExport{password})
	return out.Key, err
}

// RemoveImageKey is Backend's.
func (c *Client) RemoveImageKey(ctx context.Context, name string, force bool) error {
	r := call{method: http.MethodDelete, path: pathf("/images/keys/%s", name)}
	if force {
		r.query = map[string][]string{"force": {"true"}}
	}
	_, err := ask[nothing](ctx, c, r)
	return err
}

// SignImage is Backend's.
func (c *Client) SignImage(ctx context.Context, s ImageSign) (ImageSignatures, error) {
	return post[ImageSignatures](ctx, c, "/images/sign", s)
}

// VerifyImage is Backend's.
func (c *Client) VerifyImage(ctx context.Context, v ImageVerify) (ImageSignatures, error) {
	return post[ImageSignatures](ctx, c, "/images/verify", v)
}
