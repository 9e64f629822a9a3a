package proxy

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// A transport may read a request's body still when its answer is over: it got what the next client had sent.
func TestABodyIsItsTransportsOwn(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{s: s, w: httptest.NewRecorder(), t: &target{address: "127.0.0.1:1"}, route: &route{}}
	x.r = httptest.NewRequest("POST", "http://shop.test/", strings.NewReader("mine"))
	x.body = append(make([]byte, 0, 64), "mine"...)
	watch := newWatch(func(error) {})
	defer watch.stop()
	out, _ := x.request(context.Background(), watch)
	x.reset()
	x.body = append(x.body, "another's"...)
	if got, err := io.ReadAll(out.Body); string(got) != "mine" || err != nil {
		t.Errorf("sent %q %v", got, err)
	}
}
