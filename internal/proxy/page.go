package proxy

import (
	"html"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// refuse answers for the proxy itself, and counts it as nobody's.
func (x *exchange) refuse(status int, text string) {
	x.o = outcome{status: status, failed: x.o.failed, took: time.Since(x.start)}
	x.route.own.count(&x.o)
	x.page(status, text)
}

// page writes an error of the proxy's own, as the route wants it to look.
func (x *exchange) page(status int, text string) {
	if text == "" {
		text = http.StatusText(status)
	}
	if x.route.ErrorPage == "" || status < 502 || status > 504 {
		x.plain(status, text)
		return
	}
	body := strings.NewReplacer("{{.Status}}", strconv.Itoa(status), "{{.Text}}", html.EscapeString(text)).Replace(x.route.ErrorPage)
	x.write(status, "text/html; charset=utf-8", body)
}

func (x *exchange) plain(status int, text string) {
	if text == "" {
		text = http.StatusText(status)
	}
	x.write(status, "text/plain; charset=utf-8", strconv.Itoa(status)+" "+text+"\n")
}

func (x *exchange) write(status int, kind, body string) {
	h := x.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if x.route != nil {
		x.dress(h)
	}
	x.last(h)
	x.said = status
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write([]byte(body)) // who is gone needs no page
	}
}

func (x *exchange) redirect(to string, code int) {
	x.o = outcome{status: code, took: time.Since(x.start)}
	x.route.own.count(&x.o)
	h := x.w.Header()
	h.Set("Location", to)
	x.dress(h)
	x.last(h)
	x.said = code
	x.w.WriteHeader(code)
}

// dress gives an answer what its route adds to every answer.
func (x *exchange) dress(h http.Header) {
	if x.route.HSTS && x.https() {
		h["Strict-Transport-Security"] = []string{"max-age=31536000"}
	}
	for _, f := range x.route.setAnswer {
		if f.value == "" {
			delete(h, f.key)
		} else {
			h[f.key] = []string{f.value}
		}
	}
}
