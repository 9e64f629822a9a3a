// Command app is a small web application for tests on a real engine: it can be
// made slow, sick or dead by a request, so that a test sees what happens then.
//
//	/         a greeting with the instance's host name
//	/health   200, or 503 after /break and until /mend
//	/slow     answers after ?d=DURATION
//	/stream   ?n=N (5) lines, flushed one by one, ?d=DURATION apart
//	/echo     the body that was sent
//	/ws       an upgrade to "echo": every byte comes back
//	/who      the request's head as it came, and the address it came from
//	/exit     ends the process with ?code=N (3)
//	/metrics  Prometheus text
//
// Environment: PORT (8080), WARMUP (a duration: sick for so long after the
// start), FAIL (a code: exit with it at once), VERSION (said in the header
// Version), DEAF (any: SIGTERM is not heard). "app check" is its healthcheck,
// "app job" ends with CODE (0) after AFTER (0s).
package main

import (
	"cmp"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "check":
		check()
		return
	case len(os.Args) > 1 && os.Args[1] == "job":
		time.Sleep(duration(os.Getenv("AFTER")))
		os.Exit(number(os.Getenv("CODE"), 0))
	case os.Getenv("FAIL") != "":
		log.Print("told to fail")
		os.Exit(number(os.Getenv("FAIL"), 1))
	}

	var requests, sick atomic.Int64
	warm := time.Now().Add(duration(os.Getenv("WARMUP")))
	host, _ := os.Hostname()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		fmt.Fprintf(w, "hello from %s\n", host)
	})
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() != 0 || time.Now().Before(warm) {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, `{"status":"sick"}`)
			return
		}
		fmt.Fprintln(w, `{"status":"ok"}`)
	})
	http.HandleFunc("/break", func(http.ResponseWriter, *http.Request) { sick.Store(1) })
	http.HandleFunc("/mend", func(http.ResponseWriter, *http.Request) { sick.Store(0) })
	http.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) { os.Exit(number(r.URL.Query().Get("code"), 3)) })
	http.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(duration(r.URL.Query().Get("d")))
		fmt.Fprintln(w, host)
	})
	http.HandleFunc("/stream", stream)
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // else the first write ends the reading
		io.Copy(w, r.Body)
	})
	http.HandleFunc("/ws", upgrade)
	http.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		head, _ := httputil.DumpRequest(r, false)
		fmt.Fprintf(w, "%s%s\n", head, r.RemoteAddr)
	})
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE app_requests_total counter\napp_requests_total %d\n# TYPE app_up gauge\napp_up 1\n", requests.Load())
	})

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	version := os.Getenv("VERSION")
	named := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Version", version)
		http.DefaultServeMux.ServeHTTP(w, r)
	})
	go func() { log.Fatal(http.ListenAndServe(":"+port(), named)) }()
	log.Printf("listening on :%s", port())
	for <-stop; os.Getenv("DEAF") != ""; <-stop {
		log.Print("not heard")
	}
	log.Print("bye")
}

// stream answers line by line.
func stream(w http.ResponseWriter, r *http.Request) {
	for i := range number(r.URL.Query().Get("n"), 5) {
		if i > 0 {
			time.Sleep(duration(r.URL.Query().Get("d")))
		}
		fmt.Fprintf(w, "line %d\n", i)
		http.NewResponseController(w).Flush()
	}
}

// upgrade leaves HTTP and sends back what comes.
func upgrade(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		http.Error(w, "want an upgrade", http.StatusUpgradeRequired)
		return
	}
	c, b, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Print(err)
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	io.Copy(c, b)
}

// check is the healthcheck: there is no curl in the image.
func check() {
	r, err := http.Get("http://127.0.0.1:" + port() + "/health")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		log.Fatalf("/health answers %s", r.Status)
	}
}

func port() string { return cmp.Or(os.Getenv("PORT"), "8080") }

func duration(s string) time.Duration {
	d, err := time.ParseDuration(cmp.Or(s, "0s"))
	if err != nil {
		log.Fatal(err)
	}
	return d
}

func number(s string, otherwise int) int {
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		log.Fatal(err)
	}
	return n
}
