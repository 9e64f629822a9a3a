package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/compose"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/store"
)

const (
	// updateSettles is how often updates under way are looked at.
	updateSettles = time.Minute
	// updateTold bounds what is remembered of what was told.
	updateTold = 4096
	// deniedFor is how long an update that was denied is left alone: a registry that did not answer, or
	// a signature that came a moment too late, denies it as well.
	deniedFor = 6 * time.Hour
)

// sameImage is why nothing has moved, though the tag has another digest.
const sameImage = "it is the image that ran"

// updater is who updates in history and audit.
const updater = "automatic update"

// updates moves services with x-tender.update.auto to newer images, as a person would with
// tender up --image: through the gate, by an ordinary rollout, in their window. What was tried
// lies in the store: a digest is tried once, and again after hours where it was denied.
type updates struct {
	log   *slog.Logger
	every time.Duration
	store *store.Store
	loop  updateLoop
	look  func(ctx context.Context, r running) api.Outdated
	// pull fetches an image and says what it is; up is the daemon's own.
	pull func(ctx context.Context, ref, platform string) (tender.ImageID, error)
	up   func(ctx context.Context, s api.Submission, report func(api.Event)) (api.Result, error)

	told map[string]string // by service: what was said last, so that it is said once
}

// updateLoop is deploy's loop as updates knock at it.
type updateLoop interface {
	Images(ctx context.Context) ([]deploy.ServiceImage, error)
	Files(ctx context.Context, g store.Generation) (map[string][]byte, error)
	Rollouts(ctx context.Context, project, service string) ([]store.Rollout, error)
	Announce(n deploy.News)
}

func newUpdates(b *backend, log *slog.Logger) *updates {
	return &updates{
		log: log, every: b.config.Updates, store: b.store, loop: b.loop, look: b.lookout.look, told: map[string]string{},
		pull: func(ctx context.Context, ref, platform string) (tender.ImageID, error) {
			auth, err := b.auth(ctx, nil, ref)
			if err == nil {
				err = b.pull(ctx, ref, platform, auth, func(api.Event) {})
			}
			if err != nil {
				return tender.ImageID{}, err
			}
			return b.engine.Resolve(ctx, ref)
		},
		up: func(ctx context.Context, s api.Submission, report func(api.Event)) (api.Result, error) {
			return b.Up(ctx, api.Person{Name: updater, Scope: api.Admin}, s, report)
		},
	}
}

// run is the part.
func (u *updates) run(ctx context.Context) error {
	next := time.Now().Add(min(u.every, time.Minute))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
		at, err := u.round(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			u.log.Warn("newer images were not looked for", "err", err)
		}
		next = at
	}
}

// round looks once at all services that follow newer images by themselves, and says when to
// look again.
func (u *updates) round(ctx context.Context, now time.Time) (again time.Time, err error) {
	// Not all daemons of the world at the full hour.
	again = now.Add(u.every - u.every/10 + rand.N(u.every/5+1))
	all, err := u.loop.Images(ctx)
	if err != nil {
		return again, err
	}
	all = slices.DeleteFunc(all, func(s deploy.ServiceImage) bool { return s.Service.Update == nil || !s.Service.Update.Auto })
	u.forget(all)
	if len(all) == 0 {
		return again, nil
	}
	var kept []store.ImageUpdate
	if err := u.store.View(ctx, func(tx *store.Tx) (err error) { kept, err = tx.ImageUpdates(""); return err }); err != nil {
		return again, err
	}
	tried := map[string]store.ImageUpdate{}
	for _, k := range kept {
		if k.State == store.UpdateTrying {
			var going bool
			if k, going, err = u.settle(ctx, k); err != nil {
				return again, err
			}
			if going {
				again = earlier(again, now.Add(updateSettles))
			}
		}
		if k.State != "" {
			tried[k.Project+"/"+k.Service+"@"+k.Digest] = k
		}
	}
	begun := map[string]bool{} // one of each project at a time
	for _, s := range all {
		if ctx.Err() != nil {
			return again, ctx.Err()
		}
		window, err := tender.ParseWindow(s.Service.Update.Window)
		if err != nil { // written by another version
			u.say(s, "", err.Error())
			continue
		}
		if !window.Open(now) {
			again = earlier(again, window.Next(now))
		}
		if begun[s.Project] {
			again = earlier(again, now.Add(updateSettles))
			continue
		}
		started, soon, err := u.consider(ctx, s, window, tried, now)
		if err != nil {
			u.say(s, "", err.Error())
			u.log.Warn("a newer image is left alone for now", "project", s.Project, "service", s.Service.Name, "err", err)
		}
		if started || soon {
			begun[s.Project] = begun[s.Project] || started
			again = earlier(again, now.Add(updateSettles))
		}
	}
	return again, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// settle finds out how an update that was begun has ended: by its rollout, also over a restart
// of the daemon. One that never became a rollout may be tried again.
func (u *updates) settle(ctx context.Context, k store.ImageUpdate) (_ store.ImageUpdate, going bool, err error) {
	list, err := u.loop.Rollouts(ctx, k.Project, k.Service)
	if err != nil && tender.KindOf(err) != tender.NotFound {
		return k, false, err
	}
	for _, r := range list { // the newest first
		if r.ToImage.Digest != k.Digest || r.Reverse || r.Started.Before(k.At) {
			continue
		}
		if r.State == store.RolloutOpen {
			return k, true, nil
		}
		k.State, k.Why = r.State, cmp.Or(r.Reason, k.Why)
		text := fmt.Sprintf("the update of %s to %s is %s", k.Service, k.Reference, r.State)
		if r.State != store.RolloutDone {
			text = fmt.Sprintf("the update of %s to %s has ended: %s: %s; %s is not tried again", k.Service, k.Reference, r.State, cmp.Or(r.Reason, "no reason is known"), short(k.Digest))
		}
		u.loop.Announce(deploy.News{Kind: deploy.NewsUpdate, Project: k.Project, Service: k.Service, Rollout: r.ID, Revision: r.To, Text: text})
		return k, false, u.store.Update(ctx, func(tx *store.Tx) error { return tx.PutImageUpdate(k) })
	}
	err = u.store.Update(ctx, func(tx *store.Tx) error { return tx.ForgetImageUpdate(k) })
	k.State = ""
	return k, false, err
}

// consider decides about one service, and begins the rollout if that is what it decides; soon: it
// only waits for another one.
func (u *updates) consider(ctx context.Context, s deploy.ServiceImage, window tender.Window, tried map[string]store.ImageUpdate, now time.Time) (started, soon bool, err error) {
	found := u.look(ctx, running{project: s.Project, service: s.Service.Name, image: s.Image, built: s.Service.Build, rule: *s.Service.Update})
	if found.Problem != "" {
		u.say(s, "", "nothing is known of newer images: "+found.Problem)
		return false, false, nil
	}
	to, cause, is := chosenUpdate(found, s.Image)
	if !is {
		u.quiet(s)
		return false, false, nil
	}
	digest, err := u.digestOf(ctx, s, found, to)
	if err != nil {
		return false, false, err
	}
	if digest == "" || digest == s.Image.Digest {
		u.quiet(s)
		return false, false, nil
	}
	what := fmt.Sprintf("%s (%s), %s", to, short(digest), cause)
	k, ok := tried[s.Project+"/"+s.Service.Name+"@"+digest]
	if ok && k.State == store.UpdateDenied {
		if ok = now.Sub(k.At) < deniedFor; ok && u.told[s.Project+"/"+s.Service.Name] != "" {
			return false, false, nil // that it was denied was told
		}
	}
	if ok {
		if k.State != store.UpdateTrying {
			why := k.State
			switch {
			case k.Why == sameImage:
				why = sameImage
			case k.State == store.RolloutDone:
				why = "it was left again"
			}
			u.say(s, "", fmt.Sprintf("%s: left alone, for it was tried at %s: %s", what, k.At.UTC().Format(time.DateTime), why))
		}
		return false, false, nil
	}
	switch {
	case s.Stopped:
		u.say(s, "", what+": left alone while the service is stopped")
		return false, false, nil
	case s.Busy != "":
		u.say(s, "", what+": waits, "+s.Busy)
		return false, window.Open(now), nil
	case !window.Open(now):
		u.say(s, "", fmt.Sprintf("%s: waits for its window %s, which opens %s", what, window, window.Next(now).Format("Mon 2006-01-02 15:04 MST")))
		return false, false, nil
	}
	submission, held, err := u.submission(ctx, s, to)
	if err != nil {
		return false, false, err
	}
	if held != "" {
		u.say(s, "", what+": left alone, "+held)
		return false, false, nil
	}
	started, err = u.begin(ctx, s, submission, store.ImageUpdate{
		Project: s.Project, Service: s.Service.Name, Digest: digest, Reference: to, State: store.UpdateTrying, Why: cause, At: now,
	})
	return started, false, err
}

// chosenUpdate says what a service is to move to, and why.
func chosenUpdate(o api.Outdated, image tender.ImageID) (to, cause string, is bool) {
	repository := repositoryIn(image.Reference)
	if o.InRange != "" && image.Reference != repository+":"+o.InRange {
		return repository + ":" + o.InRange, "the newest in " + o.Range, true
	}
	if o.Rebuilt {
		return image.Reference, "which was rebuilt", true
	}
	return "", "", false
}

// digestOf is the digest of what was chosen.
func (u *updates) digestOf(ctx context.Context, s deploy.ServiceImage, found api.Outdated, to string) (string, error) {
	if to == s.Image.Reference {
		return found.NewDigest, nil
	}
	there := u.look(ctx, running{project: s.Project, service: s.Service.Name, image: tender.ImageID{Reference: to}, rule: *s.Service.Update})
	if there.Problem != "" {
		return "", tender.Errorf(tender.Unavailable, "find %s: %s", to, there.Problem).Hint("tender image outdated %s", s.Service.Name)
	}
	return there.NewDigest, nil
}

// submission is what tender up --image would send; held says why it must not be.
func (u *updates) submission(ctx context.Context, s deploy.ServiceImage, to string) (_ api.Submission, held string, err error) {
	// What runs must be what the file says, but for its image: else this would undo a rollback.
	now, err := compose.WithImage(s.Generation.YAML, s.Service.Name, s.Image.Reference)
	if err != nil {
		return api.Submission{}, "", err
	}
	p, err := compose.Parse(now)
	if err != nil {
		return api.Submission{}, "", err
	}
	if said, ok := p.Service(s.Service.Name); !ok || !compose.Same(said.Spec, s.Service.Spec) {
		return api.Submission{}, "for an earlier revision runs than the file describes; tender up decides", nil
	}
	yml, err := compose.WithImage(s.Generation.YAML, s.Service.Name, to)
	if err != nil {
		return api.Submission{}, "", err
	}
	files, err := u.loop.Files(ctx, s.Generation)
	if err != nil {
		return api.Submission{}, "", err
	}
	out := api.Submission{
		Project: s.Project, YAML: string(yml), Files: files, ComposeFiles: s.Generation.ComposeFiles, WorkingDir: s.Generation.WorkingDir,
		Services: []string{s.Service.Name}, NoDeps: true, Pull: "missing", Detach: true, Orphans: s.Generation.Orphans,
	}
	if s.Service.Scale == nil {
		out.Scale = map[string]int{s.Service.Name: s.Service.Replicas} // as many as there are
	}
	return out, "", nil
}

// begin pulls the image, writes down that it is tried, and starts the rollout.
func (u *updates) begin(ctx context.Context, s deploy.ServiceImage, sub api.Submission, k store.ImageUpdate) (started bool, err error) {
	id, err := u.pull(ctx, k.Reference, s.Service.Platform)
	if err != nil {
		return false, err
	}
	switch {
	case id.ID != "" && id.ID == s.Image.ID: // an engine that knows it by two digests names either
		k.State, k.Why = store.RolloutDone, sameImage
	case id.Digest != k.Digest:
		return false, tender.Errorf(tender.Conflict, "%s was %s and is %s now", k.Reference, short(k.Digest), short(cmp.Or(id.Digest, id.ID))).Hint("it is looked at again within %s", u.every)
	}
	if err := u.store.Update(ctx, func(tx *store.Tx) error { return tx.PutImageUpdate(k) }); err != nil || k.State != store.UpdateTrying {
		return false, err
	}
	result, err := u.up(ctx, sub, func(api.Event) {})
	switch {
	case err == nil:
		delete(u.told, s.Project+"/"+s.Service.Name)
		u.loop.Announce(deploy.News{
			Kind: deploy.NewsUpdate, Project: s.Project, Service: s.Service.Name,
			Text: fmt.Sprintf("%s moves from %s to %s (%s): %s; %s", s.Service.Name, s.Image.Reference, k.Reference, short(k.Digest), k.Why, result.Text),
		})
		u.log.Info("update begun", "project", s.Project, "service", s.Service.Name, "from", s.Image.Reference, "to", k.Reference, "digest", k.Digest, "cause", k.Why)
		return true, nil
	case tender.KindOf(err) == tender.Denied:
		k.State, k.Why = store.UpdateDenied, err.Error()
		u.say(s, tender.AdviceOf(err), fmt.Sprintf("%s does not move to %s (%s): %s; it is tried again after %.0f h", s.Service.Name, k.Reference, short(k.Digest), err, deniedFor.Hours()))
		return false, u.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.PutImageUpdate(k) })
	}
	// Nothing has begun: somebody was faster, or something is away.
	forget := u.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.ForgetImageUpdate(k) })
	if forget != nil {
		return false, forget
	}
	return false, err
}

// say tells of a decision once, until another one is made.
func (u *updates) say(s deploy.ServiceImage, hint, text string) {
	key := s.Project + "/" + s.Service.Name
	if u.told[key] == text {
		return
	}
	if len(u.told) >= updateTold {
		clear(u.told)
	}
	u.told[key] = text
	if !strings.HasPrefix(text, s.Service.Name+" ") {
		text = s.Service.Name + ": " + text
	}
	u.loop.Announce(deploy.News{Kind: deploy.NewsUpdate, Project: s.Project, Service: s.Service.Name, Text: text, Hint: hint})
}

func (u *updates) quiet(s deploy.ServiceImage) { delete(u.told, s.Project+"/"+s.Service.Name) }

// forget drops what was told of services that do not follow newer images any more.
func (u *updates) forget(all []deploy.ServiceImage) {
	there := map[string]bool{}
	for _, s := range all {
		there[s.Project+"/"+s.Service.Name] = true
	}
	maps.DeleteFunc(u.told, func(key, _ string) bool { return !there[key] })
}
