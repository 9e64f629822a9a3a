package api

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// sharedIn are the layers of an image, the lowest first.
type sharedIn struct {
	Layers []string `json:"layers"`
}

// Shared says what need not travel.
type Shared struct {
	Layers int  `json:"shared"`                                                            // of the lowest ones
	Layout bool `json:"layout,omitempty" doc:"They may be left out of an OCI layout only"` // absent: of what docker save writes
}

// Arrival is how an image comes whose layout may lack layers. The zero value:
// as docker save writes it, with its names inside.
type Arrival struct {
	As    string   // what it is called in the layout: tender-arriving: and a word of its own
	Names []string // what it is called once nothing of it is missing
}

const tarType = "application/x-tar"

// travelRoutes are how an image comes from the asker's own engine, without a registry.
func (h *handler) travelRoutes() {
	r := rule{scope: Deploy, own: true}
	add(h, r, huma.Operation{
		OperationID: "shared", Method: http.MethodPost, Path: "/images/shared", Summary: "How many of the lowest of these layers the engine has",
		Description: "Layers are named by their digests unpacked (rootfs.diff_ids). What is counted may be left out of what load is sent.",
	},
		func(ctx context.Context, in *struct{ Body sharedIn }) (*answer[Shared], error) {
			n, err := h.backend.Shared(ctx, in.Body.Layers)
			return one(n, err)
		})
	add(h, r, huma.Operation{
		OperationID: "load", Method: http.MethodPost, Path: "/images/load", Summary: "Take images as docker save writes them",
		Description: "The body is a tar, gzipped or not; it is never held: it flows to the engine. The answer is a stream of events that ends with kind done or error. " +
			"With as, it is the OCI layout of one image of that name, without the layers that shared counted; it is proved whole before it gets its names, and refused otherwise.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{tarType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}},
		Responses:   contents(ndjson, schemaOf[Event](h)),
	},
		func(_ context.Context, in *struct {
			As    string   `query:"as" doc:"What the image is called in the layout: tender-arriving: and a word of its own"`
			Names []string `query:"name,explode" maxItems:"1000" doc:"What it is to be called; may be given several times"`
		},
		) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(c huma.Context) {
				req, w := humago.Unwrap(c)
				// The engine talks while the images still flow in.
				_ = http.NewResponseController(w).EnableFullDuplex()
				h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
					return Event{Text: "loaded"}, h.backend.Load(ctx, who, req.Body, Arrival{As: in.As, Names: in.Names}, report)
				}).Body(c)
			}}, nil
		})
}

// Shared is Backend's.
func (c *Client) Shared(ctx context.Context, layers []string) (Shared, error) {
	return post[Shared](ctx, c, "/images/shared", sharedIn{layers})
}

// Load is Backend's.
func (c *Client) Load(ctx context.Context, tarball io.Reader, a Arrival, report func(Event)) error {
	r := call{method: http.MethodPost, path: "/images/load", body: tarball, kind: tarType, alone: true}
	if a.As != "" {
		r.query = url.Values{"as": {a.As}, "name": a.Names}
	}
	_, err := c.news(ctx, r, report)
	return err
}
