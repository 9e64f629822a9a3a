package sample

import "math"

// reading is what one look at an instance's files has shown.
type reading struct {
	has   [metrics]bool
	value [metrics]float64
	disks []transfers
	procs []byte // the file cgroup.procs, until the next file is read
}

// transfers are those with one device: bytes read and written, operations of both.
type transfers struct {
	major, minor uint64
	count        [len(namedOfDisk)]uint64
}

func (r *reading) clear() {
	r.has = [metrics]bool{}
	r.disks = r.disks[:0]
	r.procs = nil
}

func (r *reading) set(m metric, v float64) { r.has[m], r.value[m] = true, v }

// whole takes a file that holds one number, of which so many make one unit.
func (r *reading) whole(m metric, b []byte, per float64) {
	if n, ok := number(b); ok {
		r.set(m, float64(n)/per)
	}
}

// limit takes one that may be without end, which is 0, as cAdvisor has it.
func (r *reading) limit(m metric, b []byte) {
	const endless = 1 << 62
	n, ok := number(b)
	switch l, _ := line(b); {
	case string(l) == "max", ok && n > endless:
		r.set(m, 0)
	case ok:
		r.set(m, float64(n))
	}
}

func (r *reading) pidsMax(b []byte) { r.limit(threadsMax, b) }

// cpuMax takes QUOTA PERIOD, of which the first may be max.
func (r *reading) cpuMax(b []byte) {
	l, _ := line(b)
	quota, rest := word(l)
	period, _ := word(rest)
	r.whole(specCPUQuota, quota, 1)
	r.whole(specCPUPeriod, period, 1)
}

// cpuWeight turns 1 to 10000 into shares, 2 to 262144, as cAdvisor does.
func (r *reading) cpuWeight(b []byte) {
	if n, ok := number(b); ok && n >= 1 && n <= 10000 {
		r.set(specCPUShares, float64(2+(n-1)*262142/9999))
	}
}

// ticks is how many the kernel counts in a second of processor time where it counts for
// people: 100 on all that Linux runs on.
const ticks = 100

func (r *reading) cpuacctStat(b []byte) {
	pairs(b, func(key []byte, n uint64) {
		switch string(key) {
		case "user":
			r.set(cpuUser, float64(n)/ticks)
		case "system":
			r.set(cpuSystem, float64(n)/ticks)
		}
	})
}

// cpuStat takes that of both versions: no word means two things.
func (r *reading) cpuStat(b []byte) {
	pairs(b, func(key []byte, n uint64) {
		switch string(key) {
		case "usage_usec":
			r.set(cpuUsage, float64(n)/1e6)
		case "user_usec":
			r.set(cpuUser, float64(n)/1e6)
		case "system_usec":
			r.set(cpuSystem, float64(n)/1e6)
		case "nr_periods":
			r.set(cfsPeriods, float64(n))
		case "nr_throttled":
			r.set(cfsThrottledPeriods, float64(n))
		case "throttled_time":
			r.set(cfsThrottledSeconds, float64(n)/1e9)
		case "throttled_usec":
			r.set(cfsThrottledSeconds, float64(n)/1e6)
		}
	})
}

func (r *reading) memoryStatV1(b []byte) {
	pairs(b, func(key []byte, n uint64) {
		switch string(key) {
		case "total_cache":
			r.set(memoryCache, float64(n))
		case "total_rss":
			r.set(memoryRSS, float64(n))
		case "total_swap":
			r.set(memorySwap, float64(n))
		case "total_mapped_file":
			r.set(memoryMapped, float64(n))
		case "total_active_file":
			r.set(memoryActiveFile, float64(n))
		case "total_inactive_file":
			r.set(memoryInactiveFile, float64(n))
		case "total_pgfault":
			r.set(memoryFaults, float64(n))
		case "total_pgmajfault":
			r.set(memoryMajorFaults, float64(n))
		}
	})
}

func (r *reading) memoryStatV2(b []byte) {
	pairs(b, func(key []byte, n uint64) {
		switch string(key) {
		case "file":
			r.set(memoryCache, float64(n))
		case "anon":
			r.set(memoryRSS, float64(n))
		case "kernel":
			r.set(memoryKernel, float64(n))
		case "file_mapped":
			r.set(memoryMapped, float64(n))
		case "active_file":
			r.set(memoryActiveFile, float64(n))
		case "inactive_file":
			r.set(memoryInactiveFile, float64(n))
		case "pgfault":
			r.set(memoryFaults, float64(n))
		case "pgmajfault":
			r.set(memoryMajorFaults, float64(n))
		}
	})
}

func (r *reading) oomKills(b []byte) {
	pairs(b, func(key []byte, n uint64) {
		if string(key) == "oom_kill" {
			r.set(oomEvents, float64(n))
		}
	})
}

func (r *reading) memoryEvents(b []byte) {
	pairs(b, func(key []byte, n uint64) {
		switch string(key) {
		case "oom_kill":
			r.set(oomEvents, float64(n))
		case "max":
			r.set(memoryFailcnt, float64(n))
		}
	})
}

// pressure takes some and full, the second of which is the metric after m.
func (r *reading) pressure(m metric, b []byte) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		kind, rest := word(l)
		at := m
		if string(kind) == "full" {
			at++
		}
		for len(rest) > 0 {
			var w []byte
			w, rest = word(rest)
			if key, value, ok := split(w, '='); ok && string(key) == "total" {
				r.whole(at, value, 1e6)
			}
		}
	}
}

// disk finds the transfers with a device, or makes them.
func (r *reading) disk(device []byte) *transfers {
	a, b, ok := split(device, ':')
	major, ok1 := number(a)
	minor, ok2 := number(b)
	if !ok || !ok1 || !ok2 {
		return nil
	}
	for i := range r.disks {
		if r.disks[i].major == major && r.disks[i].minor == minor {
			return &r.disks[i]
		}
	}
	r.disks = append(r.disks, transfers{major: major, minor: minor})
	return &r.disks[len(r.disks)-1]
}

// blkio takes lines such as "8:0 Read 4096". Reads go to count[at], writes behind.
func (r *reading) blkio(b []byte, at int) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		device, rest := word(l)
		what, rest := word(rest)
		value, _ := word(rest)
		n, ok := number(value)
		if !ok {
			continue
		}
		switch string(what) {
		case "Read":
			if d := r.disk(device); d != nil {
				d.count[at] = n
			}
		case "Write":
			if d := r.disk(device); d != nil {
				d.count[at+1] = n
			}
		}
	}
}

// ioStat takes lines such as "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func (r *reading) ioStat(b []byte) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		device, rest := word(l)
		for len(rest) > 0 {
			var w []byte
			w, rest = word(rest)
			key, value, _ := split(w, '=')
			at := -1
			switch string(key) {
			case "rbytes":
				at = 0
			case "wbytes":
				at = 1
			case "rios":
				at = 2
			case "wios":
				at = 3
			}
			n, ok := number(value)
			if at < 0 || !ok {
				continue
			}
			if d := r.disk(device); d != nil {
				d.count[at] = n
			}
		}
	}
}

// listed counts the processes. Who they are stays until the next file is read.
func (r *reading) listed(b []byte) {
	n := 0
	for _, c := range b {
		if c == '\n' {
			n++
		}
	}
	r.set(processes, float64(n))
	r.procs = b
}

// derive works out what no file says by itself.
func (r *reading) derive() {
	if r.has[memoryUsage] {
		r.set(memoryWorkingSet, math.Max(0, r.value[memoryUsage]-r.value[memoryInactiveFile]*one(r.has[memoryInactiveFile])))
	}
	// Without a quota nothing is throttled, and cAdvisor is silent.
	if !r.has[specCPUQuota] {
		r.has[cfsPeriods], r.has[cfsThrottledPeriods], r.has[cfsThrottledSeconds] = false, false, false
	}
}

// one is 1 or 0.
func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
