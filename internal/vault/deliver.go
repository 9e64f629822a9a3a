package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tenderhq/tender"
)

// File is a value as an instance will see it. The file is mounted by itself, so
// who may read it there is said by its own owner and mode; on the host nobody
// but root passes the folder.
type File struct {
	Name     string // one path element
	Value    func() ([]byte, error)
	UID, GID int
	Mode     fs.FileMode
}

// Deliver makes each file in dir, which it creates with mode 0700. A file that
// is there with the same value, owner and mode is left alone, because instances
// hold it by its inode. One that differs is Conflict: a path has one value for ever.
func Deliver(dir string, files []File) error {
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("deliver to %s: %w", dir, err)
	}
	for _, f := range files {
		if err := f.deliver(dir); err != nil {
			return fmt.Errorf("deliver %s: %w", filepath.Join(dir, f.Name), err)
		}
	}
	return nil
}

// makeDir is MkdirAll, but closes to others also what was there already.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

func (f File) deliver(dir string) error {
	if f.Name == "" || f.Name == "." || f.Name == ".." || filepath.Base(f.Name) != f.Name {
		return tender.Errorf(tender.Invalid, "%q is no file name", f.Name)
	}
	value, err := f.Value()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, f.Name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writeFile(path, value, f.Mode, &[2]int{f.UID, f.GID})
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return tender.Errorf(tender.Conflict, "something else is there (%s)", info.Mode())
	}
	had, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(had, value) {
		return tender.Errorf(tender.Conflict, "another value is there").
			Hint("something other than Tender has written it; remove %s", path)
	}
	// The owner and the mode are no part of the path's promise, and changing
	// them keeps the inode.
	if s, ok := info.Sys().(*syscall.Stat_t); ok && (int(s.Uid) != f.UID || int(s.Gid) != f.GID) {
		if err := os.Chown(path, f.UID, f.GID); err != nil {
			return err
		}
	}
	if info.Mode().Perm() != f.Mode.Perm() {
		return os.Chmod(path, f.Mode.Perm())
	}
	return nil
}

// writeFile puts the whole file there, or none: temp, fsync, rename.
func writeFile(path string, value []byte, mode fs.FileMode, owner *[2]int) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(value)
	if err == nil && owner != nil {
		err = f.Chown(owner[0], owner[1])
	}
	if err == nil {
		// After the chown, which takes special bits away, and with the exact mode, whatever the umask.
		err = f.Chmod(mode.Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
