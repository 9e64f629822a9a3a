package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Upgrade is the protocol that exec, attach and run switch to. Towards the
// client it carries frames: one byte that says which stream, three zeros, four
// bytes of length (big-endian), then that much. Streams 1 and 2 are Docker's.
// From the client comes the bare standard input, and its end is the half-close
// of the connection.
const Upgrade = "tender-stream"

// Streams of Upgrade beside stdout and stderr.
const (
	frameBeat   = 0 // nothing; the connection is alive
	frameStdout = 1 // with a TTY: everything
	frameStderr = 2
	frameExit   = 3 // JSON {code} or {error}: the last one
	frameEvent  = 4 // JSON Event, before the process runs
	frameOpened = 5 // JSON {id, tty, instance}: the process runs
)

// maxFrame is the longest frame that a client takes, in bytes.
const maxFrame = 4 << 20

// chunk is how much output goes into one frame at most.
const chunk = 32 << 10

// opened tells the client what it is connected to.
type opened struct {
	ID       string `json:"id"` // for resize
	TTY      bool   `json:"tty"`
	Instance string `json:"instance"`
}

// frames writes frames, one at a time, from several goroutines.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) write(stream byte, data []byte) error {
	b := make([]byte, 8, 8+len(data))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(data)))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.w.Write(append(b, data...))
	return err
}

func (f *frames) writeJSON(stream byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(stream, b)
}

// copyRaw sends all of r as stdout.
func (f *frames) copyRaw(r io.Reader) error {
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := f.write(frameStdout, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF { //nolint:errorlint // Read's contract
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyFramed sends all of r, which is framed as Docker does it. It looks at
// each frame, so that ours can come between two of them.
func (f *frames) copyFramed(r io.Reader) error {
	buf := make([]byte, chunk)
	for {
		stream, left, err := readHeader(r)
		if errors.Is(err, io.EOF) { // between two frames
			return nil
		}
		if err != nil {
			return err
		}
		if stream != frameStderr {
			stream = frameStdout
		}
		for left > 0 {
			n := min(left, len(buf))
			if _, err := io.ReadFull(r, buf[:n]); err != nil {
				return fmt.Errorf("read output: %w", err)
			}
			if err := f.write(stream, buf[:n]); err != nil {
				return err
			}
			left -= n
		}
	}
}

// readHeader returns io.EOF where r ends between two frames.
func readHeader(r io.Reader) (stream byte, length int, err error) {
	var h [8]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, err
	}
	return h[0], int(binary.BigEndian.Uint32(h[4:])), nil
}
