package daemon

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/engine"
)

// find names the one instance that a target means: a running one, the lowest
// slot first, else one that ran.
func (b *backend) find(ctx context.Context, t api.Target) (tender.Instance, error) {
	picture, err := b.pictureNow(ctx)
	if err != nil {
		return tender.Instance{}, err
	}
	var found []tender.Instance
	for _, i := range picture.Instances {
		if t.Project != "" && i.Project != t.Project {
			continue
		}
		switch {
		case t.Instance != "":
			if i.Name == t.Instance || len(t.Instance) >= 4 && strings.HasPrefix(i.ID, t.Instance) {
				return i, nil
			}
		case i.Service == t.Service && !i.Oneoff && (t.Slot == 0 || i.Slot == t.Slot):
			found = append(found, i)
		}
	}
	if t.Instance != "" {
		return tender.Instance{}, tender.Errorf(tender.NotFound, "no instance %s", t.Instance).Hint("tender ps -a lists them")
	}
	if len(found) == 0 {
		return tender.Instance{}, tender.Errorf(tender.NotFound, "service %s of %s has no instance", t.Service, t.Project).
			Hint("tender ps -a -p %s lists what is there", t.Project)
	}
	slices.SortStableFunc(found, func(x, y tender.Instance) int {
		if x.Ready() != y.Ready() {
			if x.Ready() {
				return -1
			}
			return 1
		}
		return x.Slot - y.Slot
	})
	return found[0], nil
}

// some returns the instances of services, all of them if none is named; project "": of all projects.
func (b *backend) some(project string, services []string, running bool) ([]tender.Instance, error) {
	picture, err := b.picture()
	if err != nil {
		return nil, err
	}
	var out []tender.Instance
	known := map[string]bool{}
	for _, i := range picture.Instances {
		if project != "" && i.Project != project {
			continue
		}
		known[i.Service] = true
		if (len(services) == 0 || slices.Contains(services, i.Service)) && (!running || i.State == tender.Running || i.State == tender.Paused) {
			out = append(out, i)
		}
	}
	for _, s := range services {
		if !known[s] {
			return nil, tender.Errorf(tender.NotFound, "service %s of %s has no instance", s, project).Hint("tender ps -a -p %s lists what is there", project)
		}
	}
	return out, nil
}

const longestLine = 1 << 20 // bytes of one log line; the rest comes as lines of its own

// engineLogs reads from the engine. Without Follow the lines of all instances come
// merged by time, with it as they arrive.
func (b *backend) engineLogs(ctx context.Context, project string, r api.LogRequest, line func(api.LogLine) error) error {
	var of []tender.Instance
	if r.Instance != "" {
		i, err := b.find(ctx, api.Target{Project: project, Instance: r.Instance})
		if err != nil {
			return err
		}
		of = []tender.Instance{i}
	} else {
		all, err := b.some(project, r.Services, false)
		if err != nil {
			return err
		}
		of = slices.DeleteFunc(all, func(i tender.Instance) bool { return i.State == tender.Created || i.Oneoff })
	}
	var mu sync.Mutex
	if r.Follow {
		return b.follow(ctx, project, of, r, func(l api.LogLine) error {
			mu.Lock()
			defer mu.Unlock()
			return line(l)
		})
	}
	return b.merge(ctx, of, r, line)
}

// merge reads the instances side by side and always passes on the oldest line.
func (b *backend) merge(ctx context.Context, of []tender.Instance, r api.LogRequest, line func(api.LogLine) error) error {
	var sources []func(context.Context, func(api.LogLine) error) error
	for _, i := range of {
		sources = append(sources, func(ctx context.Context, line func(api.LogLine) error) error { return b.read(ctx, i, r, line) })
	}
	return sideBySide(ctx, sources, line)
}

// follow reads what is there and goes on with what comes, newcomers too.
func (b *backend) follow(ctx context.Context, project string, of []tender.Instance, r api.LogRequest, line func(api.LogLine) error) error {
	work, ctx := errgroup.WithContext(ctx)
	following := map[string]time.Time{} // id -> start of the run that is read
	begin := func(i tender.Instance, r api.LogRequest) {
		following[i.ID] = i.Started
		work.Go(func() error {
			err := b.read(ctx, i, r, line)
			if tender.KindOf(err) == tender.NotFound { // it went meanwhile
				return nil
			}
			return err
		})
	}
	for _, i := range of {
		begin(i, r)
	}
	work.Go(func() error {
		for {
			picture, changed := b.inventory.Picture()
			for _, i := range picture.Instances {
				began, seen := following[i.ID]
				if r.Instance != "" || i.Project != project || i.Oneoff || i.Started.IsZero() || seen && !i.Started.After(began) ||
					len(r.Services) > 0 && !slices.Contains(r.Services, i.Service) {
					continue
				}
				since := r
				since.Tail = -1
				if seen {
					since.Since = i.Started
				}
				begin(i, since)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
	if err := work.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// read passes on what one instance wrote, line by line.
func (b *backend) read(ctx context.Context, i tender.Instance, r api.LogRequest, line func(api.LogLine) error) error {
	stream, tty, err := b.engine.Logs(ctx, i.ID, engine.LogOptions{Since: r.Since, Until: r.Until, Tail: r.Tail, Follow: r.Follow, Timestamps: true})
	if err != nil {
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	pass := func(name, text string) error {
		stamp, rest, _ := strings.Cut(text, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil { // the rest of a line that was too long
			rest = text
		}
		return line(api.LogLine{Time: at, Service: i.Service, Instance: i.Name, Stream: name, Text: strings.TrimSuffix(rest, "\r")})
	}
	if tty {
		return lines(stream, func(text string) error { return pass("stdout", text) })
	}
	return frames(stream, pass)
}

// frames splits Docker's multiplexed stream into lines of stdout and stderr.
func frames(r io.Reader, line func(stream, text string) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var head [8]byte
	var open [2][]byte // the beginning of a line that has not ended
	names := [2]string{"stdout", "stderr"}
	flush := func() error {
		for n, rest := range open {
			if len(rest) > 0 {
				if err := line(names[n], string(rest)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isClosed(err) {
				return flush()
			}
			return err
		}
		n := 0
		if head[0] == 2 {
			n = 1
		}
		err := lines(io.LimitReader(in, int64(binary.BigEndian.Uint32(head[4:]))), func(text string) error { return line(names[n], text) }, &open[n])
		if err != nil {
			return err
		}
	}
}

// lines splits r at line ends. What is left over at the end goes to rest where
// that is given, else it is a line, too.
func lines(r io.Reader, line func(string) error, rest ...*[]byte) error {
	in := bufio.NewReaderSize(r, 32<<10)
	var have []byte
	if len(rest) > 0 {
		have = *rest[0]
	}
	for {
		part, err := in.ReadSlice('\n')
		have = append(have, part...)
		switch {
		case err == nil || len(have) > longestLine:
			if err := line(strings.TrimSuffix(string(have), "\n")); err != nil {
				return err
			}
			have = have[:0]
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) || isClosed(err):
			if len(rest) > 0 {
				*rest[0] = have
				return nil
			}
			if len(have) > 0 {
				return line(string(have))
			}
			return nil
		default:
			return err
		}
	}
}

func isClosed(err error) bool {
	return errors.Is(err, io.ErrClosedPipe) || errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "closed")
}

// Top lists the processes of each running instance.
func (b *backend) Top(ctx context.Context, project string, services []string) ([]api.Processes, error) {
	of, err := b.some(project, services, true)
	if err != nil {
		return nil, err
	}
	out := make([]api.Processes, 0, len(of))
	for _, i := range of {
		titles, rows, err := b.engine.Top(ctx, i.ID, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, api.Processes{Instance: i.Name, Service: i.Service, Slot: i.Slot, Titles: titles, Rows: rows})
	}
	return out, nil
}

// Wait blocks until an instance has exited.
func (b *backend) Wait(ctx context.Context, t api.Target) (int, error) {
	i, err := b.find(ctx, t)
	if err != nil {
		return 0, err
	}
	return b.engine.Wait(ctx, i.ID)
}

// Exec runs a command in an instance.
func (b *backend) Exec(ctx context.Context, who api.Person, t api.Target, r api.ExecRequest) (api.Stream, error) {
	i, err := b.find(ctx, t)
	if err != nil {
		return api.Stream{}, err
	}
	if i.State != tender.Running {
		return api.Stream{}, tender.Errorf(tender.Conflict, "%s is %s", i.Name, i.State).Hint("tender ps -a -p %s shows what runs", i.Project)
	}
	b.audit(ctx, who, "exec", i.Project, i.Name)
	s, err := b.engine.Exec(ctx, i.ID, engine.ExecOptions{
		Cmd: r.Cmd, Env: r.Env, User: r.User, WorkingDir: r.WorkingDir, TTY: r.TTY,
		Stdin: r.Stdin, Privileged: r.Privileged, Detach: r.Detach, Width: r.Width, Height: r.Height,
	})
	if err != nil {
		return api.Stream{}, err
	}
	return stream(i.Name, s), nil
}

// Attach connects to an instance's own process.
func (b *backend) Attach(ctx context.Context, who api.Person, t api.Target, stdin bool) (api.Stream, error) {
	i, err := b.find(ctx, t)
	if err != nil {
		return api.Stream{}, err
	}
	b.audit(ctx, who, "attach", i.Project, i.Name)
	s, err := b.engine.Attach(ctx, i.ID, stdin)
	if err != nil {
		return api.Stream{}, err
	}
	out := stream(i.Name, s)
	out.Signal = func(ctx context.Context, signal string) error { return b.engine.Signal(ctx, i.ID, signal) }
	return out, nil
}

func stream(name string, s *engine.Session) api.Stream {
	return api.Stream{
		TTY: s.TTY, Instance: name, Output: s.Output, Input: s.Input,
		CloseWrite: s.CloseWrite, Close: s.Close, Resize: s.Resize, Exit: s.Exit,
	}
}

// CopyFrom returns a tar of a path in an instance.
func (b *backend) CopyFrom(ctx context.Context, t api.Target, path string) (io.ReadCloser, error) {
	i, err := b.find(ctx, t)
	if err != nil {
		return nil, err
	}
	return b.engine.CopyFrom(ctx, i.ID, path)
}

// CopyTo unpacks a tar in a directory of an instance.
func (b *backend) CopyTo(ctx context.Context, who api.Person, t api.Target, path string, tarball io.Reader) error {
	i, err := b.find(ctx, t)
	if err != nil {
		return err
	}
	b.audit(ctx, who, "cp", i.Project, i.Name+":"+path)
	return b.engine.CopyTo(ctx, i.ID, path, tarball)
}
