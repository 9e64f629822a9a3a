package api

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// sharedIn are the layers of an image, the lowest first.
type sharedIn struct {
	Layers []string `json:"layers"`
}

type sharedOut struct {
	Shared int `json:"shared"` // of the lowest ones
}

const tarType = "application/x-tar"

// travelRoutes are how an image comes from the asker's own engine, without a registry.
func (h *handler) travelRoutes() {
	r := rule{scope: Deploy, own: true}
	add(h, r, huma.Operation{
		OperationID: "shared", Method: http.MethodPost, Path: "/images/shared", Summary: "How many of the lowest of these layers the engine has",
		Description: "Layers are named by their digests unpacked (rootfs.diff_ids). What is counted may be left out of what load is sent.",
	},
		func(ctx context.Context, in *struct{ Body sharedIn }) (*answer[sharedOut], error) {
			n, err := h.backend.Shared(ctx, in.Body.Layers)
			return one(sharedOut{n}, err)
		})
	add(h, r, huma.Operation{
		OperationID: "load", Method: http.MethodPost, Path: "/images/load", Summary: "Take images as docker save writes them",
		Description: "The body is a tar, gzipped or not; it is never held: it flows to the engine. The answer is a stream of events that ends with kind done or error.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{tarType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}},
		Responses:   contents(ndjson, schemaOf[Event](h)),
	},
		func(context.Context, *nothing) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(c huma.Context) {
				req, w := humago.Unwrap(c)
				// The engine talks while the images still flow in.
				_ = http.NewResponseController(w).EnableFullDuplex()
				h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
					return Event{Text: "loaded"}, h.backend.Load(ctx, who, req.Body, report)
				}).Body(c)
			}}, nil
		})
}

// Shared is Backend's.
func (c *Client) Shared(ctx context.Context, layers []string) (int, error) {
	out, err := post[sharedOut](ctx, c, "/images/shared", sharedIn{layers})
	return out.Shared, err
}

// Load is Backend's.
func (c *Client) Load(ctx context.Context, tarball io.Reader, report func(Event)) error {
	_, err := c.news(ctx, call{method: http.MethodPost, path: "/images/load", body: tarball, kind: tarType, alone: true}, report)
	return err
}
