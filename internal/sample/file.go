package sample

import (
	"errors"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// file is one that is read in every round. It stays open where that is allowed:
// to find it by its path costs more than to read it.
type file struct {
	dir, name string
	fd        int  // -1: not open
	none      bool // this kernel has no such file
}

func (f *file) path() string { return f.dir + "/" + f.name }

// whole is a length below which a read has seen the end of a file: the kernel cuts
// longer ones between two lines, near 4096 bytes.
const whole = 2048

// desk is where files are read: one buffer, and a bound for how many stay open.
type desk struct {
	buf  []byte
	open int // kept open
	most int
}

// read returns what the file holds, until the next read. A file that is not there is
// empty, and so for good; ENODEV says that what it told of is gone.
func (d *desk) read(f *file) ([]byte, error) {
	if f.none {
		return nil, nil
	}
	fd := f.fd
	if fd < 0 {
		var err error
		if fd, err = openFile(f.path()); err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
				f.none = true
				return nil, nil
			}
			return nil, err
		}
		if d.open < d.most {
			f.fd = fd
			d.open++
		} else {
			defer unix.Close(fd)
		}
	}
	b, err := d.pread(fd)
	if errors.Is(err, unix.EOPNOTSUPP) { // such as pressure on a kernel that was started without it
		d.close(f)
		f.none = true
		return nil, nil
	}
	return b, err
}

func (d *desk) pread(fd int) ([]byte, error) {
	if d.buf == nil {
		d.buf = make([]byte, 16<<10)
	}
	at := 0
	for {
		n, err := unix.Pread(fd, d.buf[at:], int64(at))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		at += n
		if n == 0 || at < whole {
			return d.buf[:at], nil
		}
		if at == len(d.buf) {
			if at >= largest {
				return d.buf[:at], nil
			}
			more := make([]byte, 2*at)
			copy(more, d.buf)
			d.buf = more
		}
	}
}

// largest bounds what is read of one file, in bytes.
const largest = 8 << 20

// once reads a file that is not kept open, below the folder that is open as dir. Its
// name ends in a zero byte, so that it need not be copied.
func (d *desk) once(dir int, name []byte) ([]byte, error) {
	const flags = unix.O_RDONLY | unix.O_CLOEXEC
	fd, _, e := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), flags, 0, 0, 0)
	if e != 0 {
		return nil, e
	}
	defer unix.Close(int(fd))
	return d.pread(int(fd))
}

// size is that of a file, whose name ends in a zero byte.
func size(dir int, name []byte) (uint64, bool) {
	var st unix.Statx_t
	_, _, e := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&name[0])), 0, unix.STATX_SIZE, uintptr(unsafe.Pointer(&st)), 0)
	return st.Size, e == 0
}

func (d *desk) close(f *file) {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
		d.open--
	}
}

func openFile(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// folder opens one to look below it. What it names stays the same even if
// another comes under its path.
func folder(path string) (int, error) {
	return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// thirdOfFiles is how many files may stay open: the rest of the process needs some too.
func thirdOfFiles() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 256
	}
	return int(min(l.Cur/3, 100_000))
}

// unescape turns \040 into a space, as in the kernel's tables of mounts.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
