package proxy

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	waitingMax = 1024 // requests per route that wait for something that serves
	patience   = time.Second
)

// exchange is one request on its way.
type exchange struct {
	s       *Server
	w       http.ResponseWriter
	r       *http.Request
	flusher http.Flusher
	guard   *guarded
	snap    *snapshot
	route   *route

	from     netip.Addr // the client, past trusted proxies
	trusted  bool       // who connected is a trusted proxy
	host     string     // as routes name it
	path     string     // as routes are matched with
	revision string     // of Ask
	upgrade  string     // what the client wants to speak
	cookie   string     // value of its sticky cookie
	start    time.Time  // when it came
	total    int64      // when it must have ended, in unix nanoseconds; 0: never
	tries    int
	tried    []*target
	room     [4]*target  // of tried
	begun    bool        // the body has been read from, and is not whole in body
	body     []byte      // the whole body, if it is small
	lent     bool        // a transport has body, and may read it still when all is over
	both     bool        // an answer may be written while the body is read
	whole    atomic.Bool // the body has been read to its end, unless it is in body
	out      []byte      // the head for the target
	ans      answer

	t     *target // that it is at now
	tryAt time.Time
	o     outcome
	said  int  // the status that the client was sent; 0: none
	sent  bool // the head of an answer
	fresh bool // something is written and not flushed
	abort bool // the answer was cut off, and the client must see that
	zip   *zipper
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func (x *exchange) reset() {
	body := x.body[:0]
	if x.lent {
		body = nil
	}
	*x = exchange{out: x.out[:0], body: body, ans: answer{fields: x.ans.fields[:0], listed: x.ans.listed[:0], trailer: x.ans.trailer[:0]}}
}

// front is the server for clients that speak HTTP/2, and with Options.StdFront for all.
func (s *Server) front() *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s,
		Protocols:         p,
		TLSConfig:         s.certs.config(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHead,
		ConnContext:       withGuard,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250},
		ErrorLog:          log.New(quiet{s.log}, "", 0),
	}
}

// quiet takes what net/http logs of clients' mistakes: of interest to who debugs, and to nobody else.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(b []byte) (int, error) {
	q.log.Debug("client", "error", strings.TrimSpace(string(b)))
	return len(b), nil
}

// lastAnswer ends a connection: in HTTP/1 as it says, in HTTP/2 by a GOAWAY.
var lastAnswer = []string{"close"}

// ServeHTTP carries one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g, _ := r.Context().Value(guardKey{}).(*guarded)
	if s.carry(w, r, g) {
		if g != nil && !r.ProtoAtLeast(1, 1) {
			g.harshly()
		}
		panic(http.ErrAbortHandler)
	}
}

// carry answers one request. abort: the answer was cut off, and the connection or stream must end so.
func (s *Server) carry(w http.ResponseWriter, r *http.Request, g *guarded) (abort bool) {
	x := exchanges.Get().(*exchange)
	x.s, x.w, x.r, x.guard = s, w, r, g
	if s.leaving.Load() != 0 {
		w.Header()["Connection"] = lastAnswer
	}
	x.serve()
	if s.o.Access != nil {
		x.tell()
	}
	abort = x.abort
	x.reset()
	exchanges.Put(x)
	return abort
}

func (x *exchange) serve() {
	x.start = time.Now()
	x.flusher, _ = x.w.(http.Flusher)
	x.host, x.path = hostOf(x.r.Host), pathOf(x.r)
	x.tried = x.room[:0]
	if !x.find() {
		return
	}
	if x.route.Timeout.Total > 0 {
		x.total = x.start.Add(x.route.Timeout.Total).UnixNano()
	}
	if x.guard != nil {
		x.guard.timeout.Store(int64(x.route.Timeout.Client))
	}
	if n := x.r.ContentLength; n != 0 && x.route.MaxBody > 0 && n > x.route.MaxBody {
		x.refuse(http.StatusRequestEntityTooLarge, "")
		return
	}
	x.wants()
	if !x.collect() {
		return
	}
	x.forward()
}

// find looks up the route and lets it answer what it answers itself.
func (x *exchange) find() bool {
	if x.r.TLS == nil && x.s.certs.challenge(x.w, x.r) {
		return false
	}
	x.snap = x.s.table.Load()
	x.peerOf()
	if x.r.Method == http.MethodConnect || strings.IndexByte(x.r.RequestURI, '#') >= 0 {
		x.plain(http.StatusBadRequest, "")
		return false
	}
	if x.route == nil { // Ask has one
		x.route = x.snap.routes.match(x.host, x.path)
	}
	if x.route == nil {
		x.plain(http.StatusNotFound, "No route leads here.")
		return false
	}
	return x.admit(true)
}

func (x *exchange) peerOf() {
	var peer netip.Addr
	if x.guard != nil {
		peer = x.guard.addr
	} else if p, err := netip.ParseAddrPort(x.r.RemoteAddr); err == nil {
		peer = p.Addr().Unmap()
	}
	x.from, x.trusted = peer, false
	if len(x.snap.trusted) > 0 && x.snap.trusted.has(peer) {
		x.trusted = true
		x.from = x.snap.trusted.client(peer, x.r.Header)
	}
}

// peer is the address of who connected.
func (x *exchange) peer() string {
	if x.guard != nil {
		return x.guard.text
	}
	if p, err := netip.ParseAddrPort(x.r.RemoteAddr); err == nil {
		return p.Addr().Unmap().String()
	}
	return "unknown"
}

// admit takes the request through the gates of its route. counted: it counts against the rate.
func (x *exchange) admit(counted bool) bool {
	r := x.route
	if x.revision != "" {
		return true // asked by ourselves
	}
	if len(r.Allow) > 0 && !trust(r.Allow).has(x.from) {
		x.refuse(http.StatusForbidden, "")
		return false
	}
	if r.secure && !x.https() {
		x.redirect("https://"+x.bareHost()+x.securePort()+x.r.URL.RequestURI(), http.StatusPermanentRedirect)
		return false
	}
	if r.rates != nil && counted {
		who := ""
		if r.rates.by != "" {
			who = strings.Join(x.r.Header[r.rates.by], ",")
		}
		if who == "" {
			who = x.from.String()
		}
		if ok, wait := r.rates.take(who, x.start); !ok {
			x.w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds()+.999)))
			x.refuse(http.StatusTooManyRequests, "")
			return false
		}
	}
	if len(r.BasicAuth) > 0 && !x.s.auth.ok(x.r, r.BasicAuth) {
		x.w.Header().Set("WWW-Authenticate", `Basic realm="`+x.host+`", charset="UTF-8"`)
		x.refuse(http.StatusUnauthorized, "")
		return false
	}
	if r.Maintenance != "" {
		x.w.Header().Set("Retry-After", "60")
		x.refuse(http.StatusServiceUnavailable, r.Maintenance)
		return false
	}
	if d := r.Redirect; d != nil {
		code := d.Code
		if code == 0 {
			code = http.StatusPermanentRedirect
		}
		to := strings.NewReplacer("{path}", x.r.URL.EscapedPath(), "{host}", x.r.Host, "{query}", x.r.URL.RawQuery).Replace(d.To)
		x.redirect(to, code)
		return false
	}
	return true
}

// bareHost is the Host without its port, which is that of plain HTTP.
func (x *exchange) bareHost() string {
	host := x.r.Host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return host
}

// securePort is what a Host says of the port of https: nothing where it is the
// usual one, or where a proxy in front knows better.
func (x *exchange) securePort() string {
	if _, port := firstOf(x.s.o.HTTPS); port != 0 && port != 443 && !x.trusted {
		return ":" + strconv.Itoa(port)
	}
	return ""
}

// wants notes what the client asks beyond a request and an answer.
func (x *exchange) wants() {
	if u := x.r.Header["Upgrade"]; len(u) == 1 && x.r.ProtoMajor == 1 && x.r.ContentLength == 0 && anyLists(x.r.Header["Connection"], "upgrade") {
		// Never to HTTP/2: what travels inside would pass by every route and gate.
		if proto := trim(u[0]); token(strings.ReplaceAll(proto, "/", "-")) && !strings.HasPrefix(strings.ToLower(proto), "h2") {
			x.upgrade = proto
		}
	}
	if x.route.Sticky {
		for _, c := range x.r.CookiesNamed(x.route.cookieName) {
			x.cookie = c.Value
		}
	}
}

func (x *exchange) key() pickKey {
	k := pickKey{sticky: x.cookie, revision: x.revision, not: x.tried}
	switch x.route.mode {
	case hashIP:
		k.hash = keyOfIP(x.from)
	case hashHeader:
		if v := x.r.Header.Get(x.route.by); v != "" {
			k.hash = keyOf(v)
		}
	case hashCookie:
		if c, err := x.r.Cookie(x.route.by); err == nil {
			k.hash = keyOf(c.Value)
		}
	}
	return k
}

// forward tries targets until one answers.
func (x *exchange) forward() {
	for {
		x.t = nil
		if !x.route.Paused || x.revision != "" {
			x.t = x.route.pick(x.key())
		}
		if x.t != nil && x.tryAt.IsZero() {
			x.tryAt = x.start
		} else {
			if x.t == nil && !x.wait() {
				return
			}
			x.tryAt = time.Now()
		}
		x.tries++
		if x.try() {
			return
		}
	}
}

// verdict is what became of one try.
type verdict uint8

const (
	answered verdict = iota // the client got an answer, whole or cut off
	refused                 // there is no connection: nothing was sent
	broken                  // a connection broke before a byte of an answer
	bad                     // the target answered nonsense, or too late
	gone                    // the client went
	tooLarge                // its body is larger than max_body
	tooSlow                 // its body came too slowly
	stale                   // the connection had ended while it was idle: nothing was sent
)

// try sends the request to x.t and says whether that was the end of it. What
// begin counted is ended here, come what may: a drain waits for it.
func (x *exchange) try() bool {
	x.o = outcome{again: x.revision != ""}
	ended := false
	defer func() {
		if !ended {
			x.o.failed = true
			x.t.end(&x.o)
		}
	}()
	var v verdict
	var err error
	if x.s.o.Std || x.t.tls || x.route.Protocol == "h2c" || x.route.Protocol == "https" {
		v, err = x.byStd()
	} else {
		v, err = x.byOwn()
	}
	ended = true
	if v == answered {
		x.t.end(&x.o)
		return true
	}
	if x.o.took == 0 {
		x.o.took = time.Since(x.tryAt)
	}
	if err != nil {
		x.o.reason = plainly(err).Error()
	}
	switch v {
	case gone:
		x.t.end(&x.o)
		x.abort = true
		return true
	case tooLarge, tooSlow:
		x.o.status = http.StatusRequestEntityTooLarge
		if v == tooSlow {
			x.o.status = http.StatusRequestTimeout
		}
		x.t.end(&x.o)
		x.w.Header().Set("Connection", "close")
		x.page(x.o.status, "")
		return true
	case refused:
		x.o.refused = true
		x.tried = append(x.tried, x.t)
		if x.route.Retries >= 0 && !x.begun && x.r.Context().Err() == nil {
			if x.tries <= max(x.route.Retries, 3) && x.route.another(x.key()) {
				x.again()
				return false
			}
			// Nobody else is there. It may be on its way back.
			if waited := time.Since(x.start); waited < patience {
				x.again()
				x.tried = x.tried[:0]
				pause := time.NewTimer(patience / 10)
				defer pause.Stop()
				select {
				case <-pause.C:
				case <-x.s.change():
				case <-x.r.Context().Done():
				}
				return false
			}
		}
	case broken:
		x.o.broken = true
		x.tried = append(x.tried, x.t)
		if x.tries <= x.route.Retries && !x.begun && idempotent(x.r.Method) && x.r.Context().Err() == nil && x.route.another(x.key()) {
			x.again()
			return false
		}
	case bad:
		x.o.broken = true
	}
	x.o.failed, x.o.status = true, http.StatusBadGateway
	if errors.Is(err, errTimeout) {
		x.o.status = http.StatusGatewayTimeout
	}
	x.s.log.Debug("request failed", "route", x.route.ID, "target", x.t.name, "error", err)
	x.t.end(&x.o)
	x.page(x.o.status, "")
	return true
}

func (x *exchange) again() {
	x.route.retried.Add(1)
	x.o.again = true
	x.t.end(&x.o)
}

// another says whether a request that was tried has somewhere else to go.
func (p *pool) another(k pickKey) bool { return p.choose(k, false) != nil }

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodTrace:
		return true
	}
	return false
}

// wait holds the request until something serves. The table may be another one
// then, and the route too, so that its gates are passed again.
func (x *exchange) wait() bool {
	l := x.route.ledger
	if l.waiting.Add(1) > waitingMax {
		l.waiting.Add(-1)
		l.refused.Add(1)
		x.nothing("Too many requests wait for this service already.")
		return false
	}
	defer l.waiting.Add(-1)
	wait := x.route.Timeout.Queue
	if x.total > 0 {
		wait = min(wait, time.Until(time.Unix(0, x.total)))
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	for {
		changed := x.s.change()
		if now := x.s.table.Load(); now != x.snap {
			x.snap = now
			if x.revision != "" {
				x.route = now.routes.all[x.route.ID]
			} else {
				x.route = now.routes.match(x.host, x.path)
			}
			if x.route == nil {
				x.plain(http.StatusNotFound, "No route leads here.")
				return false
			}
			if !x.admit(false) {
				return false
			}
		}
		if !x.route.Paused || x.revision != "" {
			if x.t = x.route.pick(x.key()); x.t != nil {
				return true
			}
		}
		select {
		case <-changed:
		case <-limit.C:
			x.nothing("")
			return false
		case <-x.r.Context().Done():
			x.o = outcome{took: time.Since(x.start)}
			x.route.own.count(&x.o)
			x.abort = true
			return false
		}
	}
}

// nothing answers where nothing serves.
func (x *exchange) nothing(text string) {
	x.w.Header().Set("Retry-After", "5")
	x.o = outcome{failed: true}
	x.refuse(http.StatusServiceUnavailable, text)
}

// limitAt is when something has taken too long that may take d from now.
func (x *exchange) limitAt(d time.Duration) int64 {
	at := time.Now().Add(d).UnixNano()
	if x.total > 0 {
		return min(at, x.total)
	}
	return at
}

// ctx ends when the client goes.
func (x *exchange) ctx() context.Context { return x.r.Context() }
