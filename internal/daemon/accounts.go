package daemon

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/api"
	"github.com/tenderhq/tender/internal/registry"
	"github.com/tenderhq/tender/internal/store"
)

func wireUser(a store.Account) api.RegistryUser {
	u := api.RegistryUser{Name: a.Name, Robot: a.Robot, Admin: a.Admin, Made: a.Made, Who: a.Who, Expires: a.Expires, Used: a.Used, Grants: []api.RegistryGrant{}}
	for _, g := range a.Grants {
		u.Grants = append(u.Grants, api.RegistryGrant(g))
	}
	return u
}

func grantsOf(list []api.RegistryGrant) []store.AccountGrant {
	out := []store.AccountGrant{}
	for _, g := range list {
		out = append(out, store.AccountGrant(g))
	}
	return out
}

// RegistryUsers lists the registry's accounts.
func (b *backend) RegistryUsers(ctx context.Context) (out []api.RegistryUser, err error) {
	err = b.store.View(ctx, func(tx *store.Tx) error {
		list, err := tx.Accounts()
		for _, a := range list {
			out = append(out, wireUser(a))
		}
		return err
	})
	return out, err
}

// AddRegistryUser makes one. Conflict: the name is taken.
func (b *backend) AddRegistryUser(ctx context.Context, who api.Person, in api.RegistryUserNew) (out api.RegistryUser, err error) {
	defer func() { b.auditEnd(ctx, who, "registry user add", "", grantText(in.Name, in.RegistryAccess), err) }()
	now := time.Now().UTC()
	row := store.Account{Name: in.Name, Robot: in.Robot, Admin: in.Admin, Grants: grantsOf(in.Grants), Made: now, Who: who.Name}
	if in.Valid > 0 {
		row.Expires = now.Add(in.Valid)
	}
	if err := registry.CheckAccount(row); err != nil {
		return out, err
	}
	var secret string
	if in.Robot {
		secret, row.Hash = registry.RobotToken()
	} else if row.Hash, err = registry.Hash(in.Password); err != nil {
		return out, err
	}
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.Account(row.Name); tender.KindOf(err) != tender.NotFound {
			if err != nil {
				return err
			}
			return tender.Errorf(tender.Conflict, "the registry has a user %q already", row.Name).
				Hint("tender registry user grant or passwd %s changes it", row.Name)
		}
		return tx.PutAccount(row)
	})
	if err != nil {
		return out, err
	}
	out = wireUser(row)
	out.Secret = secret
	return out, nil
}

// GrantRegistryUser gives one what it may do, in the place of what it might do.
func (b *backend) GrantRegistryUser(ctx context.Context, who api.Person, name string, access api.RegistryAccess) (api.RegistryUser, error) {
	return b.changeUser(ctx, who, "registry user grant", grantText(name, access), name, func(a *store.Account) error {
		a.Admin, a.Grants = access.Admin, grantsOf(access.Grants)
		return registry.CheckAccount(*a)
	})
}

// PasswordRegistryUser gives one another password; the old one ends at once.
func (b *backend) PasswordRegistryUser(ctx context.Context, who api.Person, name, password string) (api.RegistryUser, error) {
	hash, err := registry.Hash(password)
	if err != nil {
		return api.RegistryUser{}, err
	}
	return b.changeUser(ctx, who, "registry user passwd", name, name, func(a *store.Account) error {
		if a.Robot {
			return tender.Errorf(tender.Invalid, "%s is a robot, and has a token instead of a password", name).
				Hint("tender registry user rm %s, then add it again", name)
		}
		a.Hash = hash
		return nil
	})
}

func (b *backend) changeUser(ctx context.Context, who api.Person, what, detail, name string, change func(*store.Account) error) (out api.RegistryUser, err error) {
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		a, err := tx.Account(name)
		if err != nil {
			return err
		}
		if err := change(&a); err != nil {
			return err
		}
		out = wireUser(a)
		return tx.PutAccount(a)
	})
	b.auditEnd(ctx, who, what, "", detail, err)
	return out, err
}

// RemoveRegistryUser ends one.
func (b *backend) RemoveRegistryUser(ctx context.Context, who api.Person, name string) error {
	err := b.store.Update(ctx, func(tx *store.Tx) error { return tx.RemoveAccount(name) })
	b.auditEnd(ctx, who, "registry user rm", "", name, err)
	return err
}

// ImportRegistryUsers takes over an htpasswd file, all of it or nothing. Who is there
// already gets the file's password and keeps its grants.
func (b *backend) ImportRegistryUsers(ctx context.Context, who api.Person, in api.RegistryImport) (out []api.RegistryUser, err error) {
	defer func() {
		b.auditEnd(ctx, who, "registry user import", "", grantText(strconv.Itoa(len(out))+" users", in.RegistryAccess), err)
	}()
	list, err := registry.ReadHtpasswd(strings.NewReader(in.Text))
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	var rows []api.RegistryUser
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		for _, a := range list {
			have, err := tx.Account(a.Name)
			switch {
			case err == nil && have.Robot:
				return tender.Errorf(tender.Conflict, "the registry has a robot %q already", a.Name).Hint("tender registry user rm %s, or take it out of the file", a.Name)
			case err == nil:
				hash := a.Hash
				a = have
				a.Hash = hash
			case tender.KindOf(err) == tender.NotFound:
				a.Made, a.Who, a.Admin, a.Grants = now, who.Name, in.Admin, grantsOf(in.Grants)
			default:
				return err
			}
			if err := registry.CheckAccount(a); err != nil {
				return err
			}
			if err := tx.PutAccount(a); err != nil {
				return err
			}
			rows = append(rows, wireUser(a))
		}
		return nil
	})
	if err == nil {
		out = rows
	}
	return out, err
}

// grantText is who may do what, for the audit.
func grantText(name string, access api.RegistryAccess) string {
	if access.Admin {
		return name + ": admin"
	}
	var parts []string
	for _, g := range access.Grants {
		parts = append(parts, strings.Join(slices.Sorted(slices.Values(g.Actions)), "+")+" "+g.Repositories)
	}
	if len(parts) == 0 {
		return name
	}
	return name + ": " + strings.Join(parts, ", ")
}
