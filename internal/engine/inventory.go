package engine

import (
	"context"
	"log/slog"

	tender "github.com/tenderhq/tender"
)

// Inventory keeps a recent picture of a Reader.
type Inventory struct{}

// NewInventory makes one; Run takes the pictures.
func NewInventory(r Reader, log *slog.Logger) *Inventory { panic("contract") }

// Ready is closed once there is a first picture.
func (v *Inventory) Ready() <-chan struct{} { panic("contract") }

// Picture returns the current picture and a channel that closes when it differs.
func (v *Inventory) Picture() (tender.Picture, <-chan struct{}) { panic("contract") }

// Fresh takes a new picture now and returns it: for those who have just acted.
func (v *Inventory) Fresh(ctx context.Context) (tender.Picture, error) { panic("contract") }

// Run watches until ctx ends, and reconnects by itself.
func (v *Inventory) Run(ctx context.Context) error { panic("contract") }
