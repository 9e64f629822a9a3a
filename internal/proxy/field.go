package proxy

import "strings"

// isToken holds the characters of RFC 9110's tokens.
var isToken = func() (t [256]bool) {
	for c := range 256 {
		t[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c < 127 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

func token(s string) bool {
	for i := range len(s) {
		if !isToken[s[i]] {
			return false
		}
	}
	return s != ""
}

// validValue refuses what could end a header line early.
func validValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 127 {
			return false
		}
	}
	return true
}

// lists says whether a comma-separated header value holds word, which is lower case.
func lists(value, word string) bool {
	for value != "" {
		var one string
		one, value, _ = strings.Cut(value, ",")
		if strings.EqualFold(trim(one), word) {
			return true
		}
	}
	return false
}

func anyLists(values []string, word string) bool {
	for _, v := range values {
		if lists(v, word) {
			return true
		}
	}
	return false
}

// trim cuts the white space of RFC 9110, which is no other than these two.
func trim(s string) string { return strings.Trim(s, " \t") }

// hop says whether a header speaks of one connection, or of framing, which each
// side of the proxy has of its own.
func hop(key string) bool {
	switch key {
	case "Connection", "Content-Length", "Expect", "Host", "Http2-Settings", "Keep-Alive", "Proxy-Authenticate",
		"Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}
