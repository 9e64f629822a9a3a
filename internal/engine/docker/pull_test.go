package docker

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	tender "github.com/tenderhq/tender"
)

// A pull that hung held up everybody who waited for it, for ever.
func TestAPullThatHangsIsGivenUp(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if !strings.HasSuffix(r.URL.Path, "/images/create") {
			return
		}
		io.WriteString(w, `{"status":"Pulling from x","id":"1"}`+"\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	e, err := New("tcp://"+server.Listener.Addr().String(), Options{PullPatience: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.Pull(t.Context(), "registry.example:5000/x:1", "", "", nil)
	if err == nil || err.Error() != "pull registry.example:5000/x:1: registry.example:5000 has sent nothing for 50ms" ||
		tender.KindOf(err) != tender.Unavailable || tender.AdviceOf(err) == "" {
		t.Errorf("%v (kind %s, advice %q)", err, tender.KindOf(err), tender.AdviceOf(err))
	}
}
