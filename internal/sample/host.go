package sample

import (
	"cmp"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// host reads what the machine uses. The words are the node exporter's.
type host struct {
	s      *Sampler
	labels []Label

	stat, load, memory, disks, net, files, vm, mountinfo file

	single map[string]*Series // by name
	cpus   map[string]*[len(modes) + 2]*Series
	fields map[string]*Series // of meminfo
	disk   map[string]*hostDisk
	nic    map[string]*hostInterface
	mounts []*hostMount
	listed uint64 // in which round mounts were
	root   *hostMount
	uname  *Series
}

type hostDisk struct {
	series [len(namedOfHostDisk)]*Series
	seen   uint64
	none   bool // not a disk that anybody asks for
}

type hostInterface struct {
	series [len(namedOfHostInterface)]*Series
	seen   uint64
	none   bool
}

// modes are the columns of a processor in /proc/stat; two of guests follow.
var modes = [...]string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}

var (
	cpuSeconds   = naming{"node_cpu_seconds_total", "Seconds the CPUs spent in each mode.", Counter, nil}
	guestSeconds = naming{"node_cpu_guest_seconds_total", "Seconds the CPUs spent in guests (VMs) for each mode.", Counter, nil}
)

// namedOfHostDisk are the columns of /proc/diskstats behind the name, in their order.
var namedOfHostDisk = [...]struct {
	naming
	unit, per float64
}{
	{naming{"node_disk_reads_completed_total", "The total number of reads completed successfully.", Counter, nil}, 1, 1},
	{naming{"node_disk_reads_merged_total", "The total number of reads merged.", Counter, nil}, 1, 1},
	{naming{"node_disk_read_bytes_total", "The total number of bytes read successfully.", Counter, nil}, 512, 1},
	{naming{"node_disk_read_time_seconds_total", "The total number of seconds spent by all reads.", Counter, nil}, 1, 1e3},
	{naming{"node_disk_writes_completed_total", "The total number of writes completed successfully.", Counter, nil}, 1, 1},
	{naming{"node_disk_writes_merged_total", "The number of writes merged.", Counter, nil}, 1, 1},
	{naming{"node_disk_written_bytes_total", "The total number of bytes written successfully.", Counter, nil}, 512, 1},
	{naming{"node_disk_write_time_seconds_total", "The total number of seconds spent by all writes.", Counter, nil}, 1, 1e3},
	{naming{"node_disk_io_now", "The number of I/Os currently in progress.", Gauge, nil}, 1, 1},
	{naming{"node_disk_io_time_seconds_total", "Total seconds spent doing I/Os.", Counter, nil}, 1, 1e3},
	{naming{"node_disk_io_time_weighted_seconds_total", "The weighted # of seconds spent doing I/Os.", Counter, nil}, 1, 1e3},
}

// namedOfHostInterface are the columns of /proc/net/dev, in their order.
var namedOfHostInterface = [16]string{
	"receive_bytes", "receive_packets", "receive_errs", "receive_drop", "receive_fifo", "receive_frame", "receive_compressed", "receive_multicast",
	"transmit_bytes", "transmit_packets", "transmit_errs", "transmit_drop", "transmit_fifo", "transmit_colls", "transmit_carrier", "transmit_compressed",
}

// noDisks and noMounts are what the node exporter leaves out by itself.
var (
	noDisks   = regexp.MustCompile(`^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`)
	noMounts  = regexp.MustCompile(`^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`)
	noFSTypes = regexp.MustCompile(`^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$`)
	// One whose server is away would hold up the round for as long.
	remoteFSTypes = regexp.MustCompile(`^(nfs.*|cifs|smb.*|fuse.*|9p|ceph|glusterfs|lustre|afs|gfs2?|ocfs2|beegfs)$`)
)

func newHost(s *Sampler) *host {
	at := func(name string) file { return file{dir: s.o.Proc, name: name, fd: -1} }
	h := &host{
		s: s, stat: at("stat"), load: at("loadavg"), memory: at("meminfo"), disks: at("diskstats"), net: at("1/net/dev"),
		files: at("sys/fs/file-nr"), vm: at("vmstat"), mountinfo: at("1/mountinfo"),
		single: map[string]*Series{}, cpus: map[string]*[len(modes) + 2]*Series{}, fields: map[string]*Series{},
		disk: map[string]*hostDisk{}, nic: map[string]*hostInterface{},
	}
	// Dashboards for the node exporter look for these two.
	h.labels = sorted(Label{"instance", s.o.Node}, Label{"job", "node"}, Label{"node", s.o.Node})
	for f, own := range map[*file]string{&h.net: "self/net/dev", &h.mountinfo: "self/mountinfo"} {
		if _, err := s.desk.read(f); err != nil || f.none {
			*f = at(own)
		}
	}
	return h
}

func (h *host) close() {
	for _, f := range []*file{&h.stat, &h.load, &h.memory, &h.disks, &h.net, &h.files, &h.vm, &h.mountinfo} {
		h.s.desk.close(f)
	}
}

// one adds a point of a series that the host has once.
func (h *host) one(n naming, v float64) {
	p := h.single[n.name]
	if p == nil {
		p = n.of(h.labels)
		h.single[n.name] = p
	}
	h.s.points = append(h.s.points, Point{p, v})
}

func (h *host) read(f *file) []byte {
	b, err := h.s.desk.read(f)
	if err != nil {
		h.s.fail(f.path(), err)
	}
	return b
}

func (h *host) look() {
	h.processors(h.read(&h.stat))
	h.loads(h.read(&h.load))
	h.meminfo(h.read(&h.memory))
	h.diskstats(h.read(&h.disks))
	h.interfaces(h.read(&h.net))
	h.descriptors(h.read(&h.files))
	h.vmstat(h.read(&h.vm))
	h.filesystems()
	h.clock()
}

// processors reads /proc/stat.
func (h *host) processors(b []byte) {
	count := 0
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		key, rest := word(l)
		if len(key) > 3 && string(key[:3]) == "cpu" {
			count++
			h.processor(key[3:], rest)
			continue
		}
		value, _ := word(rest)
		n, ok := number(value)
		if !ok {
			continue
		}
		switch string(key) {
		case "ctxt":
			h.one(naming{"node_context_switches_total", "Total number of context switches.", Counter, nil}, float64(n))
		case "intr":
			h.one(naming{"node_intr_total", "Total number of interrupts serviced.", Counter, nil}, float64(n))
		case "processes":
			h.one(naming{"node_forks_total", "Total number of forks.", Counter, nil}, float64(n))
		case "btime":
			h.one(naming{"node_boot_time_seconds", "Node boot time, in unixtime.", Gauge, nil}, float64(n))
		case "procs_running":
			h.one(naming{"node_procs_running", "Number of processes in runnable state.", Gauge, nil}, float64(n))
		case "procs_blocked":
			h.one(naming{"node_procs_blocked", "Number of processes blocked waiting for I/O to complete.", Gauge, nil}, float64(n))
		}
	}
	if count > 0 {
		h.one(naming{"machine_cpu_cores", "Number of logical CPU cores.", Gauge, nil}, float64(count))
	}
}

func (h *host) processor(name, rest []byte) {
	of := h.cpus[string(name)]
	if of == nil {
		of = new([len(modes) + 2]*Series)
		cpu := Label{"cpu", string(name)}
		for i, mode := range modes {
			of[i] = cpuSeconds.of(h.labels, cpu, Label{"mode", mode})
		}
		of[len(modes)] = guestSeconds.of(h.labels, cpu, Label{"mode", "user"})
		of[len(modes)+1] = guestSeconds.of(h.labels, cpu, Label{"mode", "nice"})
		h.cpus[string(name)] = of
	}
	for _, p := range of {
		var w []byte
		w, rest = word(rest)
		n, ok := number(w)
		if !ok {
			return
		}
		h.s.points = append(h.s.points, Point{p, float64(n) / ticks})
	}
}

func (h *host) loads(b []byte) {
	l, _ := line(b)
	for _, n := range [...]naming{
		{"node_load1", "1m load average.", Gauge, nil}, {"node_load5", "5m load average.", Gauge, nil}, {"node_load15", "15m load average.", Gauge, nil},
	} {
		var w []byte
		w, l = word(l)
		if v, ok := decimal(w); ok {
			h.one(n, v)
		}
	}
}

// meminfo reads lines such as "Active(anon):  11228 kB".
func (h *host) meminfo(b []byte) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		key, rest, ok := split(l, ':')
		value, rest := word(rest)
		n, isNumber := number(value)
		if !ok || !isNumber {
			continue
		}
		v, unit := float64(n), ""
		if w, _ := word(rest); string(w) == "kB" {
			v, unit = v*1024, "_bytes"
		}
		p := h.fields[string(key)]
		if p == nil {
			field := strings.NewReplacer("(", "_", ")", "").Replace(string(key)) + unit
			p = naming{"node_memory_" + field, "Memory information field " + field + ".", Gauge, nil}.of(h.labels)
			h.fields[string(key)] = p
		}
		h.s.points = append(h.s.points, Point{p, v})
		if string(key) == "MemTotal" {
			h.one(naming{"machine_memory_bytes", "Amount of memory installed on the machine.", Gauge, nil}, v)
		}
	}
}

func (h *host) diskstats(b []byte) {
	count := 0
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		_, rest := word(l)
		_, rest = word(rest)
		name, rest := word(rest)
		if len(name) == 0 {
			continue
		}
		of := h.disk[string(name)]
		if of == nil {
			of = &hostDisk{none: noDisks.Match(name)}
			device := Label{"device", string(name)}
			for i := range of.series {
				if !of.none {
					of.series[i] = namedOfHostDisk[i].of(h.labels, device)
				}
			}
			h.disk[string(name)] = of
		}
		of.seen = h.s.round
		count++
		for i := range of.series {
			var w []byte
			w, rest = word(rest)
			if n, ok := number(w); ok && !of.none {
				h.s.points = append(h.s.points, Point{of.series[i], float64(n) * namedOfHostDisk[i].unit / namedOfHostDisk[i].per})
			}
		}
	}
	if count > 0 && count < len(h.disk) {
		for name, of := range h.disk {
			if of.seen != h.s.round {
				delete(h.disk, name)
			}
		}
	}
}

func (h *host) interfaces(b []byte) {
	count := 0
	interfaces(b, &h.s.columns, func(name []byte) {
		of := h.nic[string(name)]
		if of == nil {
			// What goes through these is counted with the instance at their other end.
			of = &hostInterface{none: strings.HasPrefix(string(name), "veth")}
			device := Label{"device", string(name)}
			for i := range of.series {
				if what := namedOfHostInterface[i]; !of.none {
					of.series[i] = naming{"node_network_" + what + "_total", "Network device statistic " + what + ".", Counter, nil}.of(h.labels, device)
				}
			}
			h.nic[string(name)] = of
		}
		of.seen = h.s.round
		count++
		if of.none {
			return
		}
		for i, p := range of.series {
			h.s.points = append(h.s.points, Point{p, float64(h.s.columns[i])})
		}
	})
	if count > 0 && count < len(h.nic) {
		for name, of := range h.nic {
			if of.seen != h.s.round {
				delete(h.nic, name)
			}
		}
	}
}

// descriptors reads "804 0 2466165".
func (h *host) descriptors(b []byte) {
	l, _ := line(b)
	w, rest := word(l)
	if n, ok := number(w); ok {
		h.one(naming{"node_filefd_allocated", "File descriptor statistics: allocated.", Gauge, nil}, float64(n))
	}
	_, rest = word(rest)
	w, _ = word(rest)
	if n, ok := number(w); ok {
		h.one(naming{"node_filefd_maximum", "File descriptor statistics: maximum.", Gauge, nil}, float64(n))
	}
}

func (h *host) vmstat(b []byte) {
	pairs(b, func(key []byte, n uint64) {
		switch string(key) {
		case "oom_kill":
			h.one(naming{"node_vmstat_oom_kill", "/proc/vmstat information field oom_kill.", Counter, nil}, float64(n))
		case "pgfault":
			h.one(naming{"node_vmstat_pgfault", "/proc/vmstat information field pgfault.", Counter, nil}, float64(n))
		case "pgmajfault":
			h.one(naming{"node_vmstat_pgmajfault", "/proc/vmstat information field pgmajfault.", Counter, nil}, float64(n))
		case "pswpin":
			h.one(naming{"node_vmstat_pswpin", "/proc/vmstat information field pswpin.", Counter, nil}, float64(n))
		case "pswpout":
			h.one(naming{"node_vmstat_pswpout", "/proc/vmstat information field pswpout.", Counter, nil}, float64(n))
		}
	})
}

// clock tells the time, how well it is kept, and what the kernel is called.
func (h *host) clock() {
	h.one(naming{"node_time_seconds", "System time in seconds since epoch (1970).", Gauge, nil}, seconds(h.s.at))
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil {
		const inNanoseconds, unsynchronized = 0x2000, 5 // STA_NANO, TIME_ERROR
		unit := 1e6
		if t.Status&inNanoseconds != 0 {
			unit = 1e9
		}
		h.one(naming{"node_timex_offset_seconds", "Time offset in between local system and reference clock.", Gauge, nil}, float64(t.Offset)/unit)
		h.one(naming{"node_timex_sync_status", "Is clock synchronized to a reliable server (1 = yes, 0 = no).", Gauge, nil}, one(state != unsynchronized))
		h.one(naming{"node_timex_maxerror_seconds", "Maximum error in seconds.", Gauge, nil}, float64(t.Maxerror)/1e6)
		h.one(naming{"node_timex_estimated_error_seconds", "Estimated error in seconds.", Gauge, nil}, float64(t.Esterror)/1e6)
	}
	if h.uname == nil || h.s.round%limitsEvery == 1 {
		h.kernel()
	}
	if h.uname != nil {
		h.s.points = append(h.s.points, Point{h.uname, 1})
	}
}

// kernel makes the series again where the name of the host has changed.
func (h *host) kernel() {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return
	}
	text := func(b []byte) string { return unix.ByteSliceToString(b) }
	p := naming{"node_uname_info", "Labeled system information as provided by the uname system call.", Gauge, nil}.of(h.labels,
		Label{"sysname", text(u.Sysname[:])}, Label{"release", text(u.Release[:])}, Label{"version", text(u.Version[:])},
		Label{"machine", text(u.Machine[:])}, Label{"nodename", text(u.Nodename[:])}, Label{"domainname", text(u.Domainname[:])})
	if h.uname == nil || !equal(h.uname.Labels, p.Labels) {
		h.uname = p
	}
}

func equal(a, b []Label) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// hostMount is a filesystem where it is mounted.
type hostMount struct {
	device, point, kind string
	series              [len(namedOfMount)]*Series
}

var namedOfMount = [...]naming{
	{"node_filesystem_size_bytes", "Filesystem size in bytes.", Gauge, nil},
	{"node_filesystem_free_bytes", "Filesystem free space in bytes.", Gauge, nil},
	{"node_filesystem_avail_bytes", "Filesystem space available to non-root users in bytes.", Gauge, nil},
	{"node_filesystem_files", "Filesystem total file nodes.", Gauge, nil},
	{"node_filesystem_files_free", "Filesystem total free file nodes.", Gauge, nil},
	{"node_filesystem_readonly", "Filesystem read-only status.", Gauge, nil},
}

var namedOfRoot = [len(namedOfMount)]naming{
	{"tender_engine_filesystem_size_bytes", "Size of the filesystem on which the engine keeps its data.", Gauge, nil},
	{"tender_engine_filesystem_free_bytes", "Free space there.", Gauge, nil},
	{"tender_engine_filesystem_avail_bytes", "Free space there for those who are not root.", Gauge, nil},
	{"tender_engine_filesystem_files", "File nodes there.", Gauge, nil},
	{"tender_engine_filesystem_files_free", "Free file nodes there.", Gauge, nil},
	{"tender_engine_filesystem_readonly", "1 while it cannot be written.", Gauge, nil},
}

func (h *host) filesystems() {
	if h.listed == 0 || h.s.round-h.listed >= limitsEvery {
		h.listed = h.s.round
		h.list()
	}
	for _, m := range h.mounts {
		h.room(m)
	}
	if h.s.root == "" {
		return
	}
	if h.root == nil || h.root.point != h.s.root {
		h.root = &hostMount{point: h.s.root}
		for i, n := range namedOfRoot {
			h.root.series[i] = n.of(h.labels, Label{"path", h.s.root})
		}
	}
	h.room(h.root)
}

// list takes in what is mounted; where nothing has changed, the series stay.
func (h *host) list() {
	old := map[string]*hostMount{}
	for _, m := range h.mounts {
		old[m.device+" "+m.point+" "+m.kind] = m
	}
	h.mounts = h.mounts[:0]
	seen := map[string]bool{}
	for l := range strings.Lines(string(h.read(&h.mountinfo))) {
		before, after, ok := strings.Cut(l, " - ")
		f, of := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(of) < 2 {
			continue
		}
		m := &hostMount{device: unescape(of[1]), point: unescape(f[4]), kind: of[0]}
		key := m.device + " " + m.point + " " + m.kind
		if seen[key] || noMounts.MatchString(m.point) || noFSTypes.MatchString(m.kind) || remoteFSTypes.MatchString(m.kind) {
			continue
		}
		seen[key] = true
		if o := old[key]; o != nil {
			m = o
		} else {
			for i, n := range namedOfMount {
				m.series[i] = n.of(h.labels, Label{"device", m.device}, Label{"mountpoint", m.point}, Label{"fstype", m.kind})
			}
		}
		h.mounts = append(h.mounts, m)
	}
}

// room asks how much of a filesystem is free.
func (h *host) room(m *hostMount) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.point, &st); err != nil {
		if !gone(err) {
			h.s.fail(m.point, err)
		}
		return
	}
	unit := float64(cmp.Or(int64(st.Frsize), int64(st.Bsize)))
	for i, v := range [...]float64{
		float64(st.Blocks) * unit, float64(st.Bfree) * unit, float64(st.Bavail) * unit, float64(st.Files), float64(st.Ffree),
		one(st.Flags&unix.ST_RDONLY != 0),
	} {
		h.s.points = append(h.s.points, Point{m.series[i], v})
	}
}
