package collect

import "errors"

// once logs a trouble the first time.
func (c *Collector) once(key, text string, args ...any) {
	if _, told := c.told.LoadOrStore(key, true); !told {
		c.log.Warn(text, args...)
	}
}

func (c *Collector) spoolTrouble(err error) {
	c.once("spool "+cause(err), "log files cannot be kept beside the engine's: what is rotated away before it is read will be lost", "err", err)
	text := err.Error()
	c.trouble.Store(&text)
}

func (c *Collector) unwatchable(err error) {
	c.unwatched.Store(true)
	c.once("watch", "files cannot be watched, they are looked at every second", "err", err)
}

// cause is the innermost error, without the names that differ.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
