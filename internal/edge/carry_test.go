package edge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenderhq/tender/internal/proxy"
)

// Clients of an edge that had handed over were sent to instances that the table had
// taken out, for a quarter of a second: one that stops at once lost their requests.
func TestAnEdgeThatDrainsFollowsTheTableAtOnce(t *testing.T) {
	r := newRig(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, "other") }))
	t.Cleanup(other.Close)
	r.start(nil)
	r.set(1)
	// What is kept open may ask the first edge once more.
	var kept []*bufio.ReadWriter
	for range 20 {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		kept = append(kept, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)))
	}
	ask := func(c *bufio.ReadWriter) (string, error) {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if err := c.Flush(); err != nil {
			return "", err
		}
		res, err := http.ReadResponse(c.Reader, nil)
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(res.Body)
		return string(body), err
	}
	for _, c := range kept {
		if got, err := ask(c); got != "served" {
			t.Fatalf("%q %v", got, err)
		}
	}
	r.start(func(c *Config) { c.Version = "2" })
	table := r.table(2)
	table.Proxy.Routes[0].Groups = []proxy.Group{{Aim: "web", Revision: "bbb", Weight: 1, Targets: []proxy.Target{{ID: "two", Name: "web-2", Address: other.Listener.Addr().String()}}}}
	if err := r.client.Set(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	var heard []string
	for _, c := range kept {
		got, err := ask(c)
		if got == "other" {
			return
		}
		// A machine may be too slow for the second that the table waits.
		heard = append(heard, fmt.Sprintf("%q %v", got, err))
	}
	t.Errorf("none was led by the new table: %s", strings.Join(heard, "; "))
}

// A table waits for edges that drain, but for none that does not answer.
func TestATableWaitsForEdgesThatDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := func(version uint64) Carried { return Carried{PID: os.Getpid(), Report: proxy.Report{Version: version}} }
		var c counts
		c.inherit(map[string]Carried{"old": said(1), "stuck": said(1), "ended": {Ended: true}})
		took := func(version uint64) time.Duration {
			began := time.Now()
			c.follow(version)
			return time.Since(began)
		}
		go func() {
			time.Sleep(20 * time.Millisecond)
			c.take("old", said(2))
		}()
		if d := took(2); d != followWait {
			t.Errorf("of one that is stuck the table waited %s", d)
		}
		go func() {
			time.Sleep(20 * time.Millisecond)
			c.take("old", said(3))
		}()
		if d := took(3); d != 20*time.Millisecond {
			t.Errorf("with the other one known as stuck: %s", d)
		}
		c.take("stuck", said(3))
		if d := took(3); d != 0 {
			t.Errorf("all follow: %s", d)
		}
		go func() {
			time.Sleep(30 * time.Millisecond)
			c.take("stuck", Carried{PID: os.Getpid(), Ended: true})
			c.take("old", Carried{PID: os.Getpid(), Ended: true})
		}()
		if d := took(4); d != 30*time.Millisecond {
			t.Errorf("until both have ended: %s", d)
		}
	})
}

// What edges before have counted of instances that are long gone stays in sums
// alone: it grew with each hand-over.
func TestThePastIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c counts
		target := func(id string) proxy.TargetReport {
			return proxy.TargetReport{ID: id, Aim: "web", Revision: "aaa", State: "up"}
		}
		report := func(route string, ids ...string) proxy.Report {
			r := proxy.RouteReport{ID: route}
			for _, id := range ids {
				one := target(id)
				one.Served.Requests = 5
				r.Served.Requests += 5
				r.Targets = append(r.Targets, one)
			}
			return proxy.Report{Routes: []proxy.RouteReport{r}}
		}
		for n := range 50 {
			run := fmt.Sprint(n)
			c.inherit(map[string]Carried{run: {PID: os.Getpid()}})
			one := report("shop", "stays", "gone-"+run)
			one.Routes = append(one.Routes, report("once-"+run, "x").Routes...)
			c.take(run, Carried{PID: os.Getpid(), Report: one, Ended: true})
		}
		got := c.report(report("shop", "stays"))
		if n := len(got.Routes[0].Targets); len(got.Routes) != 51 || n != 51 || got.Routes[0].Served.Requests != 505 {
			t.Errorf("at once: %d routes, %d targets, %d requests", len(got.Routes), n, got.Routes[0].Served.Requests)
		}
		time.Sleep(pastFor + time.Second)
		got = c.report(report("shop", "stays"))
		if n := len(got.Routes[0].Targets); len(got.Routes) != 1 || n != 1 || got.Routes[0].Served.Requests != 505 || got.Routes[0].Targets[0].Served.Requests != 255 {
			t.Errorf("later: %d routes, %+v", len(got.Routes), got.Routes[0])
		}
	})
}
