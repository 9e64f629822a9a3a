package policy

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/ext"

	"github.com/distribution/reference"

	"github.com/tenderhq/tender"
)

// mostCost is what one rule may cost on one service, in steps of CEL: about a second.
const mostCost = 1_000_000

// Rule is an expression that must be true of image and service.
type Rule struct {
	Name string
	Expr string // CEL: !service.privileged && image.user != "root"
	Why  string // said when it is false
	Fix  string
	Warn bool // it only warns

	program cel.Program
	fields  []string // of image that it reads; whole: it hands image on, and may read any
	health  bool     // it reads service.healthcheck, which may be the image's
	service bool     // it reads service: nobody can answer it of an image alone
}

const whole = "*"

// Uses says whether the rule reads a field of image.
func (r Rule) Uses(field string) bool {
	return slices.Contains(r.fields, field) || slices.Contains(r.fields, whole)
}

// Compiler turns expressions into rules. Its zero value is ready.
type Compiler struct{ env *cel.Env }

// Compile checks a rule: what its expression reads must be there, and it must say yes or
// no. Errors begin with line and column within the expression.
func (c *Compiler) Compile(r Rule) (Rule, error) {
	if r.Expr == "" {
		return r, errors.New("1:1: it is empty")
	}
	if c.env == nil {
		env, err := environment()
		if err != nil {
			return r, err
		}
		c.env = env
	}
	tree, issues := c.env.Compile(r.Expr)
	if issues.Err() != nil {
		var all []error
		for _, e := range issues.Errors() {
			all = append(all, fmt.Errorf("%d:%d: %s", e.Location.Line(), e.Location.Column()+1, said(e.Message)))
		}
		return r, errors.Join(all...)
	}
	if out := tree.OutputType(); out != cel.BoolType {
		return r, fmt.Errorf("1:1: it is %s, and must be true or false", out)
	}
	var err error
	if r.program, err = c.env.Program(tree, cel.CostLimit(mostCost), cel.InterruptCheckFrequency(100)); err != nil {
		return r, err
	}
	r.reads(tree.NativeRep().Expr())
	return r, nil
}

// reads notes what an expression asks of an image.
func (r *Rule) reads(e ast.Expr) {
	mentioned := 0
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.IdentKind && e.AsIdent() == "image" {
			mentioned++
		}
		if e.Kind() == ast.IdentKind && e.AsIdent() == "service" {
			r.service = true
		}
		if e.Kind() != ast.SelectKind {
			return
		}
		of, field := e.AsSelect().Operand(), e.AsSelect().FieldName()
		switch {
		case of.Kind() != ast.IdentKind:
		case of.AsIdent() == "image":
			r.fields = append(r.fields, field)
		case of.AsIdent() == "service":
			r.health = r.health || field == "healthcheck"
		}
	}))
	if mentioned > len(r.fields) { // [image].all(i, …) reads it by another name
		r.fields = append(r.fields, whole)
	}
}

// said is CEL's complaint, with the field that may have been meant.
func said(message string) string {
	_, name, ok := strings.Cut(message, "undefined field '")
	if !ok {
		return message
	}
	name = strings.TrimSuffix(name, "'")
	var known []string
	for _, t := range []any{celService{}, celImage{}, celFinding{}, Port{}, Volume{}} {
		for i := range reflect.TypeOf(t).NumField() {
			known = append(known, reflect.TypeOf(t).Field(i).Tag.Get("cel"))
		}
	}
	if near := tender.Nearest(name, known); near != "" {
		return fmt.Sprintf("%s, did you mean '%s'?", message, near)
	}
	return message
}

// environment is what expressions may name.
func environment() (*cel.Env, error) {
	return cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[celService](), reflect.TypeFor[celImage](), ext.ParseStructTags(true)),
		ext.Strings(), ext.Lists(), ext.Sets(),
		cel.CrossTypeNumericComparisons(true),
		cel.Variable("service", cel.ObjectType("policy.celService")),
		cel.Variable("image", cel.ObjectType("policy.celImage")),
		cel.Variable("project", cel.StringType),
		cel.Variable("environment", cel.StringType),
	)
}

// Service is one that is to run, as its Compose file says after everything was filled in.
type Service struct {
	Name   string
	Image  Image
	Mounts []Image // what it mounts as volumes: what lies in them can be run as well
	Fields
}

// Fields are what rules may ask of a service.
type Fields struct {
	Privileged, ReadOnly, Init, Build bool
	User, NetworkMode, PID, IPC       string
	Restart                           string
	Replicas                          int
	MemoryLimit, PidsLimit            int64 // bytes and processes; 0: none
	CPUs                              float64
	Capabilities, CapDrop             []string
	SecurityOpt, Devices, GroupAdd    []string
	Networks, Secrets                 []string
	Command, Entrypoint               []string
	Labels, Environment               map[string]string
	Ports                             []Port
	Volumes                           []Volume
	Healthcheck                       bool // it has one, or its image does
}

// Port is one on the host.
type Port struct {
	Target    int64  `cel:"target"`
	Published int64  `cel:"published"` // 0: the engine chooses
	Protocol  string `cel:"protocol"`
	HostIP    string `cel:"host_ip"`
}

// Volume is one mount.
type Volume struct {
	Type     string `cel:"type"` // bind, volume, tmpfs
	Source   string `cel:"source"`
	Target   string `cel:"target"`
	ReadOnly bool   `cel:"read_only"`
}

type celService struct {
	Name         string            `cel:"name"`
	Image        string            `cel:"image"`
	Build        bool              `cel:"build"`
	Replicas     int64             `cel:"replicas"`
	Privileged   bool              `cel:"privileged"`
	ReadOnly     bool              `cel:"read_only"`
	Init         bool              `cel:"init"`
	User         string            `cel:"user"`
	NetworkMode  string            `cel:"network_mode"`
	PID          string            `cel:"pid"`
	IPC          string            `cel:"ipc"`
	Restart      string            `cel:"restart"`
	MemoryLimit  int64             `cel:"mem_limit"`
	CPUs         float64           `cel:"cpus"`
	PidsLimit    int64             `cel:"pids_limit"`
	Capabilities []string          `cel:"cap_add"`
	CapDrop      []string          `cel:"cap_drop"`
	SecurityOpt  []string          `cel:"security_opt"`
	Devices      []string          `cel:"devices"`
	GroupAdd     []string          `cel:"group_add"`
	Networks     []string          `cel:"networks"`
	Secrets      []string          `cel:"secrets"`
	Command      []string          `cel:"command"`
	Entrypoint   []string          `cel:"entrypoint"`
	Labels       map[string]string `cel:"labels"`
	Environment  map[string]string `cel:"environment"`
	Ports        []Port            `cel:"ports"`
	Volumes      []Volume          `cel:"volumes"`
	Healthcheck  bool              `cel:"healthcheck"`
}

type celImage struct {
	Reference  string            `cel:"reference"` // as written
	Registry   string            `cel:"registry"`
	Repository string            `cel:"repository"` // without the registry
	Tag        string            `cel:"tag"`
	Digest     string            `cel:"digest"`
	Created    time.Time         `cel:"created"`
	Age        time.Duration     `cel:"age"`
	User       string            `cel:"user"`
	Labels     map[string]string `cel:"labels"`
	Signers    []string          `cel:"signers"`
	Promoted   []string          `cel:"promoted"`
	Findings   []celFinding      `cel:"findings"`
}

type celFinding struct {
	Kind      string    `cel:"kind"`
	ID        string    `cel:"id"`
	Severity  string    `cel:"severity"`
	Score     float64   `cel:"score"`
	Package   string    `cel:"package_name"` // package is a word of CEL's own
	Version   string    `cel:"version"`
	Fixed     string    `cel:"fixed"`
	Ecosystem string    `cel:"ecosystem"`
	Path      string    `cel:"path"`
	Published time.Time `cel:"published"`
}

func (c *check) rules() {
	var values map[string]any
	for _, g := range c.Gates {
		for _, r := range g.Rules {
			i := c.service.Image
			switch {
			case c.mounted && len(r.fields) == 0:
				continue // of the service, and said already
			case c.Promote && r.service:
				continue // up asks
			case i.Absent && (slices.ContainsFunc(r.fields, func(f string) bool { return !named[f] }) || r.health && !c.service.Healthcheck):
				c.warn(r.Name, "its image is not here yet: up asks again when it is", "tender pull "+c.service.Name)
				continue
			case r.Uses("findings") && i.Scan == nil:
				continue // said already
			case r.Uses("signers") && i.Signers == nil:
				c.broken(r, "nobody can say who signed it")
				continue
			case r.Uses("promoted") && i.Promoted == nil:
				c.broken(r, "nobody can say what it was promoted to")
				continue
			}
			if values == nil {
				values = map[string]any{"service": c.celService(), "image": c.celImage(), "project": c.Project, "environment": c.Environment}
			}
			if r.program == nil {
				c.broken(r, "it was not compiled")
				continue
			}
			out, _, err := r.program.Eval(values)
			if err != nil {
				c.broken(r, err.Error())
			} else if out.Value() != true {
				why := r.Why
				if why == "" {
					why = "it is false: " + r.Expr
				}
				c.say(tender.Verdict{Rule: r.Name, Why: why, Fix: r.Fix, Deny: !r.Warn})
			}
		}
	}
}

// named are the fields of an image that its reference tells.
var named = map[string]bool{"reference": true, "registry": true, "repository": true, "tag": true}

func (c *check) broken(r Rule, why string) {
	c.say(tender.Verdict{Rule: r.Name, Why: fmt.Sprintf("%s cannot be answered: %s", r.Expr, why), Fix: "ask with has(…) first for what may be missing", Deny: !r.Warn})
}

func (c *check) celService() *celService {
	f := c.service.Fields
	return &celService{
		Name: c.service.Name, Image: c.service.Image.Reference, Build: f.Build, Replicas: int64(f.Replicas), Privileged: f.Privileged, ReadOnly: f.ReadOnly, Init: f.Init,
		User: f.User, NetworkMode: f.NetworkMode, PID: f.PID, IPC: f.IPC, Restart: f.Restart, MemoryLimit: f.MemoryLimit, CPUs: f.CPUs, PidsLimit: f.PidsLimit,
		Capabilities: f.Capabilities, CapDrop: f.CapDrop, SecurityOpt: f.SecurityOpt, Devices: f.Devices, GroupAdd: f.GroupAdd, Networks: f.Networks, Secrets: f.Secrets,
		Command: f.Command, Entrypoint: f.Entrypoint, Labels: f.Labels, Environment: f.Environment, Ports: f.Ports, Volumes: f.Volumes, Healthcheck: f.Healthcheck,
	}
}

func (c *check) celImage() *celImage {
	i := c.service.Image
	age := c.Now.Sub(i.Created)
	if c.toCome(i.Created) {
		age = c.Now.Sub(time.Time{}) // as one that does not say
	}
	out := &celImage{
		Reference: i.place(), Digest: i.Digest, Created: i.Created, Age: age, User: i.User, Labels: i.Labels, Signers: i.Signers, Promoted: i.Promoted,
	}
	if name, err := reference.ParseNormalizedNamed(i.place()); err == nil {
		out.Registry, out.Repository = reference.Domain(name), reference.Path(name)
		if t, ok := reference.TagNameOnly(name).(reference.Tagged); ok {
			out.Tag = t.Tag()
		}
	}
	if i.Scan != nil {
		for _, f := range i.Scan.Findings {
			out.Findings = append(out.Findings, celFinding{
				Kind: f.Kind, ID: f.ID, Severity: f.Severity.String(), Score: f.Score, Package: f.Package, Version: f.Version, Fixed: f.Fixed,
				Ecosystem: f.Ecosystem, Path: f.Path, Published: f.Published,
			})
		}
	}
	return out
}
