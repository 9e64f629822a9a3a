package proxy

import (
	"crypto/sha256"
	"hash/maphash"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	tender "github.com/tenderhq/tender"
)

const (
	authKept = 1024
	authTime = 10 * time.Minute
	ratesMax = 16384 // clients counted per route
)

func isBcrypt(hash string) bool {
	_, err := bcrypt.Cost([]byte(hash))
	return err == nil
}

// authCache remembers who was let in, since a bcrypt comparison takes a tenth
// of a second on purpose. It holds digests under a key of this process, no passwords.
type authCache struct {
	mu   sync.Mutex
	seen map[[32]byte]time.Time
	slot chan struct{} // bounds comparisons at a time
	once sync.Once
}

func (a *authCache) ok(r *http.Request, users map[string]string) bool {
	user, password, given := r.BasicAuth()
	if !given || len(password) > 72 { // bcrypt reads no more
		return false
	}
	hash, known := users[user]
	if !known {
		for _, hash = range users { // nobody takes as long to refuse as somebody does
			break
		}
	}
	key := sha256.Sum256([]byte(hash + "\x00" + password))
	now := time.Now()
	a.mu.Lock()
	until, hit := a.seen[key]
	a.mu.Unlock()
	if hit && known && now.Before(until) {
		return true
	}
	a.once.Do(func() { a.slot = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) })
	select {
	case a.slot <- struct{}{}:
		defer func() { <-a.slot }()
	case <-r.Context().Done():
		return false
	}
	if bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) != nil || !known {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil || len(a.seen) >= authKept {
		a.seen = map[[32]byte]time.Time{}
	}
	a.seen[key] = now.Add(authTime)
	return true
}

// rates is a bucket of tokens for each client of a route.
type rates struct {
	limit tender.RateLimit
	by    string // the header

	mu      sync.Mutex
	buckets map[uint64]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newRates(l tender.RateLimit) *rates {
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	by, _ := strings.CutPrefix(l.By, "header:")
	if l.By == "ip" {
		by = ""
	}
	return &rates{limit: l, by: http.CanonicalHeaderKey(by), buckets: map[uint64]bucket{}}
}

// take says whether one more request is allowed, and if not, after how long one will be.
func (l *rates) take(client string, now time.Time) (ok bool, wait time.Duration) {
	key := maphash.String(seed, client)
	each := l.limit.Per.Seconds() / float64(l.limit.Requests)
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[key]
	if !known {
		if len(l.buckets) >= ratesMax {
			l.shrink(now, each)
		}
		b = bucket{float64(l.limit.Burst), now}
	}
	b.tokens = min(float64(l.limit.Burst), b.tokens+now.Sub(b.at).Seconds()/each)
	b.at = now
	if ok = b.tokens >= 1; ok {
		b.tokens--
	} else {
		wait = time.Duration((1 - b.tokens) * each * float64(time.Second))
	}
	l.buckets[key] = b
	return ok, wait
}

// shrink forgets whoever has all tokens again, and if nobody has, anybody: the
// bound on memory stands before fairness in a flood.
func (l *rates) shrink(now time.Time, each float64) {
	for k, b := range l.buckets {
		if b.tokens+now.Sub(b.at).Seconds()/each >= float64(l.limit.Burst) {
			delete(l.buckets, k)
		}
	}
	for k := range l.buckets {
		if len(l.buckets) < ratesMax*3/4 {
			break
		}
		delete(l.buckets, k)
	}
}

// limits keeps what was counted over tables that say the same limit.
func (l *ledger) limits(r tender.RateLimit) *rates {
	if l.rates == nil || l.said != r {
		l.rates, l.said = newRates(r), r
	}
	return l.rates
}
