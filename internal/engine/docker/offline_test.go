package docker

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	tender "github.com/tenderhq/tender"
	"github.com/tenderhq/tender/internal/engine"
)

func TestAnEngineThatIsAwayIsUnavailable(t *testing.T) {
	e, err := New("unix://"+t.TempDir()+"/nobody.sock", Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, listErr := e.List(t.Context())
	watchErr := e.Watch(t.Context(), func() { t.Error("started") }, func() {})
	for _, err := range []error{listErr, watchErr, e.Ensure(t.Context(), tender.Project{}), e.Start(t.Context(), "abc")} {
		if tender.KindOf(err) != tender.Unavailable || !strings.Contains(tender.AdviceOf(err), "systemctl start docker") {
			t.Errorf("%v, kind %s, advice %q", err, tender.KindOf(err), tender.AdviceOf(err))
		}
	}
}

func TestAnEngineThatWasUpgradedIsSpokenToAnew(t *testing.T) {
	var offers atomic.Value
	offers.Store("1.41")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", offers.Load().(string))
		if strings.HasSuffix(r.URL.Path, "/info") {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"ServerVersion":"x"}`)
		}
	}))
	defer server.Close()
	e, err := New("tcp://"+server.Listener.Addr().String(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, version := range []string{"1.41", "1.44", "1.44", "1.41"} {
		offers.Store(version)
		if info, err := e.Info(t.Context()); err != nil || info.API != version {
			t.Errorf("spoken %s, offered %s, %v", info.API, version, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// scripted is an engine that answers as answer says.
func scripted(t *testing.T, answer func(*http.Request) (status int, body string)) *Engine {
	t.Helper()
	e, err := New("", Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.WithAPIVersion("1.41"), client.WithHTTPClient(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		status, body := answer(r)
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})}))
	if err != nil {
		t.Fatal(err)
	}
	e.line.Store(c)
	return e
}

// A one-off that is removed when it ends was once told not to have started, when it was quick.
func TestAStartOfWhatIsGoneAtOnceIsAStart(t *testing.T) {
	e := scripted(t, func(r *http.Request) (int, string) {
		if r.Method == http.MethodPost {
			return http.StatusNoContent, ""
		}
		return http.StatusNotFound, `{"message":"no such container"}`
	})
	if err := e.Start(t.Context(), "abc"); err != nil {
		t.Error(err)
	}
}

// Debian's engine, on a host where it has made docker0 just now, once had no host-gateway for builds.
func TestTheGatewayOfABridgeThatIsNew(t *testing.T) {
	for config, want := range map[string]string{
		`{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}`:                   "172.17.0.1",
		`{"Subnet":"10.9.0.0/16","Gateway":"10.9.8.7"}`:                       "10.9.8.7",
		`{"Subnet":"172.17.0.0/16"}`:                                          "172.17.0.1",
		`{"Subnet":"fd00::/64","Gateway":"fd00::1"},{"Subnet":"10.9.8.0/24"}`: "10.9.8.1",
	} {
		e := scripted(t, func(*http.Request) (int, string) {
			return http.StatusOK, `{"Name":"bridge","IPAM":{"Config":[` + config + `]}}`
		})
		if got, err := e.gateway(t.Context()); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %s", config, got, err, want)
		}
	}
}

// A busy engine takes its time to create what a call that was cut off has asked
// for. After five seconds the next call once made a second one, under another name.
func TestACreationOfACallThatIsGoneIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		visible := time.Now().Add(30 * time.Second)
		e := scripted(t, func(r *http.Request) (int, string) {
			switch {
			case r.Method == http.MethodPost:
				return http.StatusConflict, `{"message":"the container name is already in use"}`
			case time.Now().Before(visible):
				return http.StatusNotFound, `{"message":"no such container"}`
			}
			return http.StatusOK, `{"Id":"made before","Config":{"Labels":{"tender.project":"shop","tender.service":"web","tender.revision":"r1","tender.slot":"2"}}}`
		})
		r := recipe{config: &container.Config{Image: "busybox"}, host: &container.HostConfig{}}
		id, made, err := e.createOnce(t.Context(), r, "shop-web-2", engine.Want{Project: "shop", Service: tender.Service{Name: "web", Revision: "r1"}}, 2)
		if err != nil || made || id != "made before" {
			t.Errorf("%q, made %t, %v", id, made, err)
		}
	})
}

func TestAnAddressOfAnotherKindIsRefused(t *testing.T) {
	for _, host := range []string{"ssh://me@host", "nonsense", "/var/run/docker.sock"} {
		if _, err := New(host, Options{}); tender.KindOf(err) != tender.Invalid {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, pool := range []string{"10.0.0.0/25", "fd00::/16"} {
		if _, err := New("", Options{Pool: netip.MustParsePrefix(pool)}); tender.KindOf(err) != tender.Invalid {
			t.Errorf("%s: %v", pool, err)
		}
	}
}

func TestSubnetsOfAPool(t *testing.T) {
	got := slices.Collect(subnets(netip.MustParsePrefix("10.201.4.0/22")))
	var text []string
	for _, p := range got {
		text = append(text, p.String())
	}
	if diff := cmp.Diff([]string{"10.201.4.0/23", "10.201.6.0/23"}, text); diff != "" {
		t.Error(diff)
	}
}

func TestRoutesOfTheHost(t *testing.T) {
	got := routes("Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
		"tun0\t0000C90A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n" +
		"odd\tnothex\n")
	want := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("10.201.0.0/16")}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyATellingPartOfTheStatusCounts(t *testing.T) {
	for a, b := range map[string]string{
		"Up 5 seconds":                          "Up 3 hours",
		"Up 5 seconds (healthy)":                "Up 2 days (healthy)",
		"Exited (0) 5 seconds ago":              "Exited (0) 2 days ago",
		"Up 3 seconds (health: starting)":       "Up 9 seconds (health: starting)",
		"Restarting (1) Less than a second ago": "Restarting (1) 3 seconds ago",
	} {
		if health(a) != health(b) {
			t.Errorf("%q and %q differ", a, b)
		}
	}
	for a, b := range map[string]string{
		"Up 5 seconds (healthy)":   "Up 5 seconds (unhealthy)",
		"Up 5 seconds":             "Up 5 seconds (healthy)",
		"Exited (0) 5 seconds ago": "Exited (1) 5 seconds ago",
	} {
		if health(a) == health(b) {
			t.Errorf("%q and %q are the same", a, b)
		}
	}
}

func TestSeveralErrorsBecomeOne(t *testing.T) {
	port := tender.Errorf(tender.Conflict, "port 80 is taken").Hint("choose another")
	if err := join([]error{nil, port, nil}); !errors.Is(err, port) || err.Error() != port.Error() {
		t.Errorf("one error became %v", err)
	}
	if err := join([]error{port, port}); err.Error() != "port 80 is taken" {
		t.Errorf("the same twice became %q", err)
	}
	both := join([]error{port, tender.Errorf(tender.NotFound, "no file")})
	if tender.KindOf(both) != tender.Conflict || tender.AdviceOf(both) != "choose another" || both.Error() != "port 80 is taken\nno file" {
		t.Errorf("%q %s %q", both, tender.KindOf(both), tender.AdviceOf(both))
	}
}

// Once an engine said so by the way and with success, and the image was taken for loaded.
func TestAnImageThatCannotBeUnpackedIsNotLoaded(t *testing.T) {
	e := scripted(t, func(*http.Request) (int, string) {
		return http.StatusOK, `{"stream":"Loaded image: shop/web:1\n"}` + `{"stream":"Error unpacking image shop/web:1: apply layer error: content digest sha256:abc: not found\n"}`
	})
	if err := e.Load(t.Context(), strings.NewReader(""), nil); tender.KindOf(err) != tender.Invalid || !strings.Contains(err.Error(), "sha256:abc: not found") {
		t.Errorf("load: %v", err)
	}
}
