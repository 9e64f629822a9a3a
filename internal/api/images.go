package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tenderhq/tender"
)

// imageIn names an image and how to reach its registry.
type imageIn struct {
	Reference string `json:"reference"`
	Auth      string `json:"auth,omitempty"` // X-Registry-Auth, from the user's docker config
}

func (h *handler) imageRoutes() {
	// Images belong to the host and not to a project: a token for some projects may fetch and make them too.
	r := rule{scope: Deploy, own: true}
	add(h, rule{scope: Read, own: true}, huma.Operation{OperationID: "images", Method: http.MethodGet, Path: "/images", Summary: "Which of these images the engine has"},
		func(ctx context.Context, in *struct {
			References []string `query:"reference,explode" required:"true" minItems:"1" maxItems:"1000" doc:"May be given several times"`
		},
		) (*answer[[]Image], error) {
			return list(h.backend.Images(ctx, in.References))
		})
	type move func(ctx context.Context, who Person, ref, auth string, report func(Event)) error
	route := func(id, summary string, do move) {
		add(h, r, huma.Operation{
			OperationID: id, Method: http.MethodPost, Path: "/images/" + id, Summary: summary,
			Description: "A stream of events. It ends with kind done or error.", Responses: contents(ndjson, schemaOf[Event](h)),
		},
			func(_ context.Context, in *struct{ Body imageIn }) (*huma.StreamResponse, error) {
				if in.Body.Reference == "" {
					return nil, tender.Errorf(tender.Invalid, "reference: no image is named")
				}
				return h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
					return Event{Text: in.Body.Reference}, do(ctx, who, in.Body.Reference, in.Body.Auth, report)
				}), nil
			})
	}
	route("pull", "Pull an image", h.backend.Pull)
	route("push", "Push an image", h.backend.Push)
	add(h, r, huma.Operation{
		OperationID: "build", Method: http.MethodPost, Path: "/images/build", Summary: "Build an image",
		Description: "multipart/form-data: first the part request (JSON, a BuildRequest), then a part context for each context beside " +
			"the main one, its filename being its name, and last the part context without a name: all of them tars. " +
			"The main one is never held: it flows to the engine. Values of secrets are in request alone and are never kept. The answer is a stream of events that ends with kind done, which carries the image's id, or error.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
			Type: huma.TypeString, Format: "binary",
			Description: "request: " + schemaOf[BuildRequest](h).Ref + ", context: a tar",
		}}}},
		Responses: contents(ndjson, schemaOf[Event](h)),
	},
		func(context.Context, *nothing) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(c huma.Context) {
				req, w := humago.Unwrap(c)
				// The engine talks while the context still flows in.
				_ = http.NewResponseController(w).EnableFullDuplex()
				b, next, err := readBuild(req)
				if err != nil {
					writeProblem(w, err)
					return
				}
				h.news(func(ctx context.Context, who Person, report func(Event)) (Event, error) {
					id, err := h.backend.Build(ctx, who, b, next, report)
					return Event{Service: b.Service, Image: id, Text: id}, err
				}).Body(c)
			}}, nil
		})
}

// readBuild reads the first part of a build's body; the rest is read as the
// backend asks for it.
func readBuild(r *http.Request) (b BuildRequest, next BuildContexts, err error) {
	parts, err := partsOf(r)
	if err != nil {
		return b, nil, err
	}
	part, err := nextPart(parts, "request")
	if errors.Is(err, io.EOF) {
		return b, nil, tender.Errorf(tender.Invalid, "the part request is missing")
	}
	if err != nil {
		return b, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(part, maxBody+1))
	if err != nil {
		return b, nil, tender.Errorf(tender.Invalid, "read the part request: %w", err)
	}
	if len(text) > maxBody {
		return b, nil, tender.Errorf(tender.Invalid, "the part request has more than %d bytes", maxBody)
	}
	if err := decode(text, &b); err != nil {
		return b, nil, tender.Errorf(tender.Invalid, "the part request: %w", err)
	}
	// It says whose secrets the build may have: what is no project has none for builds.
	if b.Project != "" && !projectName.MatchString(b.Project) {
		return b, nil, tender.Errorf(tender.Invalid, "project: %q is no name of a project (small letters, digits, - and _)", b.Project)
	}
	return b, func() (BuildContext, error) {
		part, err := nextPart(parts, "context")
		if err != nil {
			return BuildContext{}, err
		}
		// Part.FileName would leave out what stands before a slash.
		_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		if err != nil {
			return BuildContext{}, tender.Errorf(tender.Invalid, "the name of a context: %w", err)
		}
		return BuildContext{Name: params["filename"], Tar: part}, nil
	}, nil
}

func partsOf(r *http.Request) (*multipart.Reader, error) {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return nil, tender.Errorf(tender.Invalid, "this is sent as multipart/form-data, not as %q", r.Header.Get("Content-Type"))
	}
	return multipart.NewReader(r.Body, params["boundary"]), nil
}

// nextPart returns io.EOF when there is none.
func nextPart(parts *multipart.Reader, name string) (*multipart.Part, error) {
	part, err := parts.NextRawPart()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "look for the part %s: %w", name, err)
	}
	if part.FormName() != name {
		return nil, tender.Errorf(tender.Invalid, "the part %s was expected, not %q", name, part.FormName())
	}
	return part, nil
}

// writeBuild is the other end of readBuild.
func writeBuild(w *io.PipeWriter, m *multipart.Writer, b BuildRequest, contexts []BuildContext) {
	err := func() error {
		if err := writeJSONPart(m, "request", b); err != nil {
			return err
		}
		for _, c := range contexts {
			var part io.Writer
			var err error
			if c.Name == "" {
				part, err = m.CreateFormField("context")
			} else {
				part, err = m.CreateFormFile("context", c.Name)
			}
			if err != nil {
				return err
			}
			if _, err := io.Copy(part, c.Tar); err != nil {
				return fmt.Errorf("send the build context: %w", err)
			}
		}
		return m.Close()
	}()
	w.CloseWithError(err)
}

func writeJSONPart(m *multipart.Writer, name string, v any) error {
	part, err := m.CreateFormField(name)
	if err != nil {
		return err
	}
	return json.NewEncoder(part).Encode(v)
}
