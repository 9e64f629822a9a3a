package compose

import tender "github.com/tenderhq/tender"

type check struct{}

func (c *check) at(err *tender.Error, path ...string) error { return err }
