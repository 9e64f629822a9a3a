package alert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/common/model"

	tender "github.com/tenderhq/tender"
)

// Try is what came of a sample that was sent.
type Try struct {
	Receiver    string
	Integration string // webhook[0], slack[1]…
	Took        time.Duration
	Error       string // "": the other side has taken it
}

// Sample is what Test sends.
func Sample(now time.Time) Alert {
	return Alert{
		Labels: map[string]string{"alertname": "TenderTest", "severity": "info", "project": "test", "service": "test"},
		Annotations: map[string]string{
			"summary":     "This is a test: nothing is wrong",
			"description": "Sent by tender alert test. Whoever reads this would have been told.",
		},
		StartsAt: now, EndsAt: now.Add(defaultEnd),
	}
}

// Test sends an alert through each integration of a receiver, "" all receivers,
// right now and once: past routes, silences and groups.
func (r *Room) Test(ctx context.Context, name string, a Alert) ([]Try, error) {
	if r.house == nil {
		return nil, tender.Errorf(tender.Invalid, "alerts go to the Alertmanager at %s, which has the receivers", r.Status().Outside).
			Hint("try it there: amtool alert add TenderTest --alertmanager.url=%s", r.Status().Outside)
	}
	b, err := r.house.build(r.Status().File)
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "%w", err)
	}
	in, err := within(a, time.Now())
	if err != nil {
		return nil, tender.Errorf(tender.Invalid, "the sample: %w", err)
	}
	var names []string
	for _, rc := range b.conf.Receivers {
		names = append(names, rc.Name)
	}
	if _, known := b.receivers[name]; name != "" && !known {
		return nil, tender.Errorf(tender.NotFound, "there is no receiver %q", name).Hint("there are: %s", strings.Join(names, ", "))
	}
	var out []Try
	for _, n := range names {
		if name != "" && n != name {
			continue
		}
		for _, i := range b.receivers[n] {
			out = append(out, r.try(ctx, n, i, in))
		}
	}
	return out, ctx.Err()
}

const tryTime = 30 * time.Second

func (r *Room) try(ctx context.Context, name string, i notify.Integration, a *inner) Try {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	begun := time.Now()
	ctx = notify.WithGroupKey(ctx, fmt.Sprintf("{}:{test=%q}", begun.Format(time.RFC3339Nano)))
	ctx = notify.WithGroupLabels(ctx, model.LabelSet{model.AlertNameLabel: a.Labels[model.AlertNameLabel]})
	ctx = notify.WithReceiverName(ctx, name)
	ctx = notify.WithRepeatInterval(ctx, time.Hour)
	ctx = notify.WithNow(ctx, begun)
	ctx = notify.WithNotificationReason(ctx, notify.ReasonFirstNotification)
	ctx = notify.WithFiringAlerts(ctx, []uint64{uint64(a.Fingerprint())})
	ctx = notify.WithResolvedAlerts(ctx, nil)
	ctx = notify.WithNflogStore(ctx, nflog.NewStore(nil)) // in which an integration remembers what it sent
	_, err := i.Notify(ctx, a)
	t := Try{Receiver: name, Integration: i.String(), Took: time.Since(begun)}
	if err != nil {
		t.Error = err.Error()
	}
	return t
}

// Check says what is wrong with a configuration of Alertmanager, without taking it.
// It returns its receivers.
func Check(file string) ([]string, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", errors.Unwrap(err))
	}
	setParsers()
	h := &house{log: discard(), o: Options{ExternalURL: here()}}
	b, err := h.build(file)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, rc := range b.conf.Receivers {
		names = append(names, rc.Name)
	}
	return names, nil
}
