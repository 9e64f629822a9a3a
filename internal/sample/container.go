package sample

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tracked is an instance with the series that it has, over all its lives.
type tracked struct {
	is     Instance
	seen   uint64  // in which round
	ours   []Label // of series that are there without a control group
	theirs []Label // of those that cAdvisor has too; nil before the group is known
	guess  string  // the group that theirs names, where it was not seen
	series [metrics]*Series
	disks  map[uint64]*ofDisk
	nics   map[string]*ofInterface
	life   *life
	// ooms are those that the control groups of earlier lives counted, oom those of this one.
	ooms, oom float64
	// counted is what they and the engine made of it in the last round, before what is told beyond it.
	counted, before float64
	met             bool // before is known
}

type ofDisk struct{ series [len(namedOfDisk)]*Series }

type ofInterface struct {
	series [len(namedOfInterface)]*Series
	seen   uint64 // in which round
}

// life is what is open of one that runs, from one start to the next.
type life struct {
	pid     int
	started time.Time
	proc    int // folder /proc/PID, which stays this process' own; -1: hidden
	netns   uint64
	files   []sourced
	limits  reading // what changes seldom
	looked  uint64  // in which round at limits
}

// Files below /proc/PID.
var cgroupFile, netFile = []byte("cgroup\x00"), []byte("net/dev\x00")

// limitsEvery is after how many rounds limits are looked at again.
const limitsEvery = 6

// sorted puts labels in order and drops those without a value.
func sorted(labels ...Label) []Label {
	labels = slices.DeleteFunc(labels, func(l Label) bool { return l.Value == "" })
	slices.SortFunc(labels, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	return labels
}

// with adds some to labels. Nothing to add: the same labels, not a copy.
func with(labels []Label, extra ...Label) []Label {
	if len(extra) == 0 {
		return labels
	}
	return sorted(append(slices.Clone(labels), extra...)...)
}

func (n naming) of(labels []Label, extra ...Label) *Series {
	return &Series{Name: n.name, Help: n.help, Kind: n.kind, Labels: with(labels, append(slices.Clone(n.extra), extra...)...)}
}

// shortID is an id as docker ps prints it.
func shortID(id string) string { return id[:min(12, len(id))] }

// track returns what is known of an instance, of which some may have changed.
func (s *Sampler) track(i *Instance) *tracked {
	t := s.tracked[i.ID]
	if t == nil || t.is.Name != i.Name || t.is.Project != i.Project || t.is.Service != i.Service || t.is.Revision != i.Revision || t.is.Image != i.Image {
		if t != nil {
			s.leave(t)
		}
		t = &tracked{ours: sorted(Label{"container", shortID(i.ID)}, Label{"instance", i.Name}, Label{"node", s.o.Node},
			Label{"project", i.Project}, Label{"revision", i.Revision}, Label{"service", i.Service})}
		s.tracked[i.ID] = t
	}
	t.is, t.seen = *i, s.round
	return t
}

// attach finds the control groups of an instance that runs.
func (s *Sampler) attach(t *tracked) {
	if l := t.life; l != nil {
		if t.is.Running && l.pid == t.is.PID && l.started.Equal(t.is.Started) {
			return
		}
		s.leave(t)
	}
	if !t.is.Running || t.is.PID <= 0 {
		return
	}
	l := &life{pid: t.is.PID, started: t.is.Started, proc: -1}
	var name string
	if proc, err := folder(s.o.Proc + "/" + strconv.Itoa(t.is.PID)); err == nil {
		l.proc = proc
		if text, err := s.desk.once(proc, cgroupFile); err == nil {
			// Another process may have the number by now: then it is in other groups.
			name, l.files = s.groups.find(readGroups(string(text)), t.is.ID)
		}
		if len(l.files) > 0 {
			l.netns = namespace(proc, "ns/net")
		} else {
			unix.Close(proc)
			l.proc = -1
		}
	}
	if len(l.files) == 0 {
		name, l.files = s.groups.find(s.groups.usual(t.is.ID), t.is.ID)
	}
	if len(l.files) == 0 {
		return // it has ended since, and the next picture will say so
	}
	t.life = l
	if t.theirs == nil || t.guess != "" && t.guess != name {
		s.call(t, name)
	}
	t.guess = ""
}

// call makes the labels of an instance whose control group is called so.
func (s *Sampler) call(t *tracked, name string) {
	t.theirs = with(slices.DeleteFunc(slices.Clone(t.ours), func(l Label) bool { return l.Name == "container" }),
		Label{"id", name}, Label{"name", t.is.Name}, Label{"image", t.is.Image})
	if s.o.ComposeLabels {
		t.theirs = with(t.theirs, Label{"container_label_com_docker_compose_project", t.is.Project}, Label{"container_label_com_docker_compose_service", t.is.Service})
	}
	for m := range metrics {
		if !m.ours() {
			t.series[m] = nil
		}
	}
}

// leave closes what is open of a life.
func (s *Sampler) leave(t *tracked) {
	l := t.life
	if l == nil {
		return
	}
	t.life = nil
	t.ooms, t.oom = t.ooms+t.oom, 0
	for i := range l.files {
		s.desk.close(&l.files[i].file)
	}
	if l.proc >= 0 {
		unix.Close(l.proc)
	}
}

// namespace is the number of a process' namespace; 0: it cannot be read.
func namespace(proc int, name string) uint64 {
	var st unix.Stat_t
	if unix.Fstatat(proc, name, &st, 0) != nil {
		return 0
	}
	return st.Ino
}

// look takes one instance's figures.
func (s *Sampler) look(t *tracked) {
	r := &s.reading
	r.clear()
	if t.life != nil && !s.group(t) {
		s.leave(t)
		r.clear()
	}
	is := &t.is
	if l := t.life; l != nil {
		r.set(lastSeen, float64(s.at.Unix()))
		r.set(startTime, seconds(is.Started))
		r.set(creationTime, seconds(is.Created))
		switch is.Health {
		case "healthy":
			r.set(healthState, 1)
		case "":
			r.set(healthState, -1)
		default:
			r.set(healthState, 0)
		}
		if r.has[oomEvents] {
			t.oom = r.value[oomEvents]
		}
	}
	if t.theirs == nil && is.OOMs > 0 { // it never lives long enough to be met
		t.guess = s.groups.likely(is.ID)
		s.call(t, t.guess)
	}
	if t.theirs != nil {
		// The last one of a life is gone with its control group: the engine has told of it.
		r.set(oomEvents, s.shortages(t, max(t.ooms+t.oom, float64(is.OOMs))))
	}
	r.set(instanceRunning, one(is.Running))
	r.set(instanceRestarts, float64(is.Restarts))
	if is.Ended {
		r.set(instanceExitCode, float64(is.ExitCode))
	}
	switch is.Health {
	case "healthy":
		r.set(instanceHealth, 1)
	case "unhealthy":
		r.set(instanceHealth, 0)
	case "starting":
		r.set(instanceHealth, -1)
	}
	for m := range metrics {
		if !r.has[m] {
			continue
		}
		s.points = append(s.points, Point{t.seriesOf(m), r.value[m]})
	}
	for i := range r.disks {
		s.transfers(t, &r.disks[i])
	}
	if t.life != nil && t.life.netns != 0 && s.owners[t.life.netns] == t {
		s.network(t)
	}
}

// shortages is how often memory ran out in an instance, of which this process can count n. It
// never falls: what another process counted before stays, and whoever compares would take a
// smaller number for a new beginning, and all of it for events of now.
func (s *Sampler) shortages(t *tracked, n float64) float64 {
	t.before += max(t.counted-n, 0)
	t.counted = n
	if t.met {
		return t.before + n
	}
	last := 0.0
	if s.o.Last != nil {
		last, _ = s.o.Last(t.seriesOf(oomEvents))
	}
	if t.life == nil && t.is.Running { // its control group is yet to be met, which may know of some of them
		return max(last, n)
	}
	t.met, t.before = true, max(last-n, 0)
	return t.before + n
}

func (t *tracked) seriesOf(m metric) *Series {
	if t.series[m] == nil {
		labels := t.theirs
		if m.ours() {
			labels = t.ours
		}
		t.series[m] = named[m].of(labels)
	}
	return t.series[m]
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// group reads the files of the control groups. false: they are gone.
func (s *Sampler) group(t *tracked) bool {
	l, r := t.life, &s.reading
	limits := l.looked == 0 || s.round-l.looked >= limitsEvery
	told := false
	for i := range l.files {
		f := &l.files[i]
		if f.limits && !limits {
			continue
		}
		b, err := s.desk.read(&f.file)
		if err != nil {
			if gone(err) {
				return false
			}
			s.fail(f.path(), err)
			continue
		}
		if len(b) == 0 {
			continue
		}
		told = true
		if f.limits {
			f.source.read(&l.limits, b)
			continue
		}
		f.source.read(r, b)
		if f.source.name == procs {
			s.descriptors(l)
		}
	}
	if limits {
		l.looked = s.round
	}
	for m := specCPUPeriod; m <= specMemoryReservation; m++ {
		r.has[m], r.value[m] = l.limits.has[m], l.limits.value[m]
	}
	r.has[threadsMax], r.value[threadsMax] = l.limits.has[threadsMax], l.limits.value[threadsMax]
	r.derive()
	return told
}

// mostProcs bounds for how many processes of an instance open files are counted.
const mostProcs = 256

// descriptors counts the open files of the processes that were listed. Since Linux
// 6.2 the size of the folder says how many there are; before, it is 0 and they are
// left out: to list them costs more than all the rest.
func (s *Sampler) descriptors(l *life) {
	r := &s.reading
	if s.proc < 0 || l.proc < 0 || r.value[processes] > mostProcs {
		return
	}
	sum, known := uint64(0), false
	for b := r.procs; len(b) > 0; {
		var pid []byte
		pid, b = line(b)
		s.name = append(append(s.name[:0], pid...), "/fd\x00"...)
		if n, ok := size(s.proc, s.name); ok && n > 0 {
			sum, known = sum+n, true
		}
	}
	if known {
		r.set(descriptors, float64(sum))
	}
}

func (s *Sampler) transfers(t *tracked, d *transfers) {
	key := d.major<<32 | d.minor
	of := t.disks[key]
	if of == nil {
		if t.disks == nil {
			t.disks = map[uint64]*ofDisk{}
		}
		of = &ofDisk{}
		device := Label{"device", s.device(d.major, d.minor)}
		for i := range of.series {
			of.series[i] = namedOfDisk[i].of(t.theirs, device)
		}
		t.disks[key] = of
	}
	for i, p := range of.series {
		s.points = append(s.points, Point{p, float64(d.count[i])})
	}
}

// device names one by its numbers, as cAdvisor does.
func (s *Sampler) device(major, minor uint64) string {
	numbers := strconv.FormatUint(major, 10) + ":" + strconv.FormatUint(minor, 10)
	if text, err := os.ReadFile(s.o.Sys + "/dev/block/" + numbers + "/uevent"); err == nil {
		for l := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(l), "DEVNAME="); ok {
				return "/dev/" + name
			}
		}
	}
	return numbers
}

// network reads the interfaces of the instance's namespace. The file is not kept
// open: that would keep the namespace alive.
func (s *Sampler) network(t *tracked) {
	b, err := s.desk.once(t.life.proc, netFile)
	if err != nil {
		if !gone(err) && !errors.Is(err, unix.EINVAL) {
			s.fail("net/dev of "+t.is.Name, err)
		}
		return
	}
	count := 0
	interfaces(b, &s.columns, func(name []byte) {
		if string(name) == "lo" {
			return
		}
		count++
		of := t.nics[string(name)]
		if of == nil {
			if t.nics == nil {
				t.nics = map[string]*ofInterface{}
			}
			of = &ofInterface{}
			called := string(name)
			for i := range of.series {
				of.series[i] = namedOfInterface[i].of(t.theirs, Label{"interface", called})
			}
			t.nics[called] = of
		}
		of.seen = s.round
		for i, p := range of.series {
			s.points = append(s.points, Point{p, float64(s.columns[columns[i]])})
		}
	})
	// An engine inside of an instance makes interfaces with ever new names.
	if count < len(t.nics) {
		for name, of := range t.nics {
			if of.seen != s.round {
				delete(t.nics, name)
			}
		}
	}
}

// interfaces calls f with each line of a file net/dev, whose columns are in value then.
func interfaces(b []byte, value *[16]uint64, f func(name []byte)) {
lines:
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		name, rest, ok := split(l, ':')
		if !ok {
			continue // the two lines of the head
		}
		if name, _ = word(name); len(name) == 0 {
			continue
		}
		for i := range value {
			var w []byte
			w, rest = word(rest)
			if value[i], ok = number(w); !ok {
				continue lines
			}
		}
		f(name)
	}
}
