package daemon

import (
	"strings"
	"testing"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/deploy"
	"github.com/tenderhq/tender/internal/proxy"
	"github.com/tenderhq/tender/internal/store"
)

// A certificate that is not well was told of in the edge's log alone.
func TestWhatIsWrongWithACertificateIsToldWherePeopleLook(t *testing.T) {
	orders := tender.Route{Hosts: []string{"shop.test"}, Path: "/orders", Aims: []tender.Aim{{Service: "orders"}}}
	web := tender.Route{Hosts: []string{"shop.test"}, Path: "/", Aims: []tender.Aim{{Service: "web"}}}
	head := store.Generation{Project: "shop", Routes: []tender.Route{orders, web}}
	refused := []proxy.CertReport{{Host: "shop.test", From: "auto", Problem: "there is none: not today"}}
	v := view{wanted: true, report: proxy.Report{Routes: []proxy.RouteReport{
		{ID: orders.ID("shop"), Project: "shop", Certificates: refused},
		{ID: web.ID("shop"), Project: "shop", Certificates: refused},
		{ID: "blog/blog.test/", Project: "blog", Certificates: []proxy.CertReport{{Host: "blog.test", From: "internal"}}},
	}}}
	if said := v.said(); said != "shop: the certificate of shop.test: there is none: not today" {
		t.Errorf("status says %q", said)
	}
	found := certificates(v.report, head, "orders")
	if len(found) != 1 || found[0].What != "the certificate of shop.test: there is none: not today" || !strings.Contains(found[0].Next, "ports 80 and 443") {
		t.Errorf("found %+v", found)
	}
	if all := findings(deploy.ProjectState{Name: "shop"}, deploy.ServiceState{Name: "orders", State: "healthy"}, found); len(all) != 1 {
		t.Errorf("why says %+v", all)
	}
	if found := certificates(v.report, head, "web"); len(found) != 1 || found[0].Evidence[0] != "route shop/shop.test/" {
		t.Errorf("found %+v", found)
	}
	if found := certificates(v.report, head, "db"); found != nil {
		t.Errorf("of a service that no route leads to: %+v", found)
	}
}
