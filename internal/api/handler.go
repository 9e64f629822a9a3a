package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tenderhq/tender"
)

// Limits of what is read from a client, in bytes.
const (
	MaxSubmission = 32 << 20 // the body of up and plan
	MaxSecret     = 1 << 20  // one value
	maxBody       = 1 << 20  // any other body
)

// bodyPause is how long a client may be silent while it sends a body.
const bodyPause = time.Minute

// Options of Handler; the zero value works.
type Options struct {
	Log     *slog.Logger // default: none
	Version string       // of the program, for the OpenAPI document
	// Heartbeat is how often an answer that goes on says so when it has nothing
	// else to say; default 10 s. Clients give up after three and a half.
	Heartbeat time.Duration
	// Mounts are handlers of other rooms by the path that they lie under, such as "/v1/". Reading
	// them, and asking them by POST, needs the scope read, all else the scope deploy, both for all projects.
	Mounts map[string]http.Handler
	// Apart are mounts that see to it by themselves that a person who may see some
	// projects alone (PersonFrom) is told of no other.
	Apart map[string]http.Handler
	// Alone are mounts that find out by themselves who asks, as their protocol has it, and
	// take paths as they come. PersonFrom knows who is at the other end of a socket.
	Alone map[string]http.Handler
}

const defaultHeartbeat = 10 * time.Second

type handler struct {
	backend Backend
	log     *slog.Logger
	api     huma.API
	beat    time.Duration
	streams streams
}

// Handler serves all of b under /tender/v1, its description at /openapi.json
// and /openapi.yaml, and /healthz. Everything but /healthz asks who is there:
// see ConnContext and Backend.Authenticate.
func Handler(b Backend, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = "devel"
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = defaultHeartbeat
	}
	mux := http.NewServeMux()
	c := huma.DefaultConfig("Tender", o.Version)
	c.Info.Description = "Standard Compose files in, a managed system out."
	// The document is served below, and nothing that would load a page from elsewhere.
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", "", nil
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: decode}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format}
	c.Transformers = []huma.Transformer{ours}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	c.Security = []map[string][]string{{"token": {}}}
	h := &handler{backend: b, log: o.Log, beat: o.Heartbeat, api: humago.New(mux, c)}
	h.streams.open = map[string]openStream{}
	h.api.UseMiddleware(allow)
	h.lookRoutes()
	h.sinkRoutes()
	h.ruleRoutes()
	h.policyRoutes()
	h.alertRoutes()
	h.registryRoutes()
	h.imageTagRoutes()
	h.pruneRoutes()
	h.changeRoutes()
	h.steerRoutes()
	h.consoleRoutes()
	h.imageRoutes()
	h.travelRoutes()
	h.scanRoutes()
	h.signingRoutes()
	h.promotionRoutes()
	h.loginRoutes()
	h.accountRoutes()
	h.routeRoutes()
	h.secretRoutes()
	h.tokenRoutes()
	for path, other := range o.Mounts {
		mux.Handle(path, mounted(other, false))
	}
	for path, other := range o.Apart {
		mux.Handle(path, mounted(other, true))
	}
	h.describe(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, tender.Errorf(tender.NotFound, "there is nothing at %s %s", r.Method, r.URL.Path).
			Hint("what there is stands in /openapi.json"))
	})
	return h.guard(mux, o.Alone)
}

// guard comes before all routes: who asks, how slowly, and what happens when
// our own code panics.
func (h *handler) guard(next http.Handler, alone map[string]http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, "ok\n")
			return
		}
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				h.log.Error("panic while serving", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				panic(http.ErrAbortHandler) // cut: what was sent so far must not look whole
			}
		}()
		for path, other := range alone {
			if strings.HasPrefix(r.URL.Path, path) {
				Patient(other).ServeHTTP(w, r)
				return
			}
		}
		who, err := h.authenticate(r)
		if err != nil {
			e := *problem(err)
			if e.Status == http.StatusForbidden {
				e.Status = http.StatusUnauthorized
			}
			writeProblem(w, &e)
			return
		}
		r = r.WithContext(withPerson(r.Context(), who))
		w.Header().Set("Cache-Control", "no-store")
		Patient(next).ServeHTTP(oneInvalid{w}, r)
	})
}

// oneInvalid says 400 where huma says 422: there is one status for what is invalid.
type oneInvalid struct{ http.ResponseWriter }

func (w oneInvalid) WriteHeader(status int) {
	if status == http.StatusUnprocessableEntity {
		status = statuses[tender.Invalid]
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w oneInvalid) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Patient reads a body for as long as the client sends, and ends a request whose client is
// silent for a minute meanwhile.
func Patient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = &patientBody{ReadCloser: r.Body, rc: http.NewResponseController(w)}
		next.ServeHTTP(w, r)
	})
}

// patientBody lets a client send as long as it likes, but not be silent.
type patientBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	// A recorder in a test has no deadlines; a real connection has.
	_ = b.rc.SetReadDeadline(time.Now().Add(bodyPause))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		// What is left armed would cancel the request's context later.
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (b *patientBody) Close() error {
	_ = b.rc.SetReadDeadline(time.Time{})
	return b.ReadCloser.Close()
}

// rule says who may call an operation.
type rule struct {
	scope Scope
	// own: the operation itself looks at which projects the person may see.
	own bool
}

// allow compares the rule of an operation with the person and the project that
// the path or the query names.
func allow(c huma.Context, next func(huma.Context)) {
	r, _ := c.Operation().Metadata["rule"].(rule)
	who, ok := PersonFrom(c.Context())
	project := c.Param("project")
	if project == "" {
		project = c.Query("project")
	}
	if r.own && project == "" && len(who.Projects) > 0 {
		project = who.Projects[0]
	}
	err := who.May(r.scope, project)
	if !ok || r.scope == "" {
		err = tender.Errorf(tender.Denied, "nobody may do this")
	}
	if err != nil {
		_, w := humago.Unwrap(c)
		writeProblem(w, err)
		return
	}
	next(c)
}

// answer is a JSON body.
type answer[T any] struct{ Body T }

type nothing struct{}

// add registers an operation under Prefix.
func add[I, O any](h *handler, r rule, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	op.Path = Prefix + op.Path
	op.Metadata = map[string]any{"rule": r}
	op.BodyReadTimeout = -1 // patientBody looks after that
	op.SkipValidateBody = true
	op.RejectUnknownQueryParameters = true
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBody
	}
	op.MaxBodyBytes++ // huma refuses what is exactly as long as its limit
	op.Description = strings.TrimSpace(op.Description + "\n\nNeeds the scope " + string(r.scope) + ".")
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	success := "200"
	if op.DefaultStatus != 0 {
		success = fmt.Sprint(op.DefaultStatus)
	}
	if op.Responses[success] == nil {
		op.Responses[success] = &huma.Response{Description: "Done"}
	}
	op.Responses["default"] = &huma.Response{Description: "What went wrong", Content: map[string]*huma.MediaType{
		"application/problem+json": {Schema: schemaOf[Error](h)},
	}}
	huma.Register(h.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			e := problem(err)
			if e.Status == http.StatusInternalServerError {
				h.log.Error("request", "operation", op.OperationID, "error", err)
			}
			return nil, e
		}
		return out, nil
	})
}

func schemaOf[T any](h *handler) *huma.Schema {
	return h.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}

// ours turns what huma itself finds wrong with a request into our errors.
func ours(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	e := &Error{Status: m.Status, Kind: string(kindOf(m.Status)), Detail: m.Detail}
	if e.Status == http.StatusUnprocessableEntity {
		e.Status = statuses[tender.Invalid]
	}
	var details []string
	for _, d := range m.Errors {
		text := d.Message
		if d.Location != "" && d.Location != "body" {
			text = strings.NewReplacer("path.", "", "query.", "").Replace(d.Location) + ": " + text
		}
		details = append(details, text)
	}
	if len(details) > 0 {
		e.Detail = strings.Join(details, "; ")
	}
	return e, nil
}

// decode is strict JSON; its errors say where.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	offset := d.InputOffset()
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the JSON value")
			offset = d.InputOffset()
		}
	}
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = e.Offset
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		offset = e.Offset
		err = fmt.Errorf("%s must be %s, not %s", e.Field, e.Type, e.Value)
	}
	before := data[:max(0, min(int(offset), len(data)))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n') - 1
	return fmt.Errorf("the JSON body is wrong at line %d, column %d: %s", line, max(1, column), strings.TrimPrefix(err.Error(), "json: "))
}

// describe serves the OpenAPI document, which is made when first asked for.
func (h *handler) describe(mux *http.ServeMux) {
	doc := h.api.OpenAPI()
	for _, name := range []string{"ErrorModel", "ErrorDetail"} {
		delete(doc.Components.Schemas.Map(), name) // huma's own; ours is Error
	}
	serve := func(path, contentType string, make func() ([]byte, error)) {
		make = sync.OnceValues(make)
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			b, err := make()
			if err != nil {
				writeProblem(w, fmt.Errorf("describe the API: %w", err))
				return
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write(b)
		})
	}
	serve("/openapi.json", "application/openapi+json", func() ([]byte, error) { return json.Marshal(doc) })
	serve("/openapi.yaml", "application/openapi+yaml", doc.YAML)
}
