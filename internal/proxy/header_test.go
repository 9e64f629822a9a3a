package proxy

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"
)

func TestHeaders(t *testing.T) {
	v2 := func(tail ...byte) string { return string(header2) + string(tail) }
	for name, c := range map[string]struct {
		in   string
		want string // source destination, "local", or "" for refused
	}{
		"version 1, IPv4":                   {"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n", "192.0.2.7:4711 198.51.100.1:443"},
		"version 1, IPv6":                   {"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "[2001:db8::1]:1 [2001:db8::2]:65535"},
		"version 1, unknown":                {"PROXY UNKNOWN\r\n", "local"},
		"version 1, unknown with a tail":    {"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "local"},
		"version 1, a family that lies":     {"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", ""},
		"version 1, a port with a zero":     {"PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n", ""},
		"version 1, a port too high":        {"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n", ""},
		"version 1, a word too many":        {"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n", ""},
		"version 1, two spaces":             {"PROXY TCP4  192.0.2.7 198.51.100.1 1 2\r\n", ""},
		"version 1, a bare newline":         {"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n\r\n", ""},
		"version 1, no end":                 {"PROXY TCP4 192.0.2.7 198.51.100.1 1 2" + strings.Repeat(" ", 200), ""},
		"version 2, IPv4":                   {v2(0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb), "192.0.2.7:4711 198.51.100.1:443"},
		"version 2, IPv4 with an extension": {v2(0x21, 0x11, 0, 16, 192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb, 4, 0, 1, 0), "192.0.2.7:4711 198.51.100.1:443"},
		"version 2, IPv4 mapped in IPv6": {v2(append([]byte{0x21, 0x21, 0, 36}, append(append(append(make([]byte, 10), 0xff, 0xff, 192, 0, 2, 7),
			append(make([]byte, 10), 0xff, 0xff, 198, 51, 100, 1)...), 0x12, 0x67, 1, 0xbb)...)...), "192.0.2.7:4711 198.51.100.1:443"},
		"version 2, local":           {v2(0x20, 0, 0, 0), "local"},
		"version 2, a unix socket":   {v2(append([]byte{0x21, 0x31, 0, 216}, make([]byte, 216)...)...), "local"},
		"version 2, too short":       {v2(0x21, 0x11, 0, 8, 192, 0, 2, 7, 198, 51, 100, 1), ""},
		"version 2, of a version 3":  {v2(0x31, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0, 1, 0, 2), ""},
		"version 2, a command more":  {v2(0x22, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0, 1, 0, 2), ""},
		"version 2, without bound":   {v2(0x21, 0x11, 0xff, 0xff), ""},
		"no header":                  {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		"nothing":                    {"", ""},
		"half of one":                {"PROXY TCP4 192.0", ""},
		"version 2 after version 1s": {"PROXY\r\n\r\n\x00\r\nQUIT\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			after := "what comes after"
			r := strings.NewReader(c.in + after)
			if c.want == "" {
				r = strings.NewReader(c.in)
			}
			source, destination, local, err := readHeader(r)
			got := ""
			switch {
			case err != nil:
			case local:
				got = "local"
			default:
				got = source.String() + " " + destination.String()
			}
			if got != c.want {
				t.Fatalf("got %q (%v), want %q", got, err, c.want)
			}
			if rest, _ := io.ReadAll(r); c.want != "" && string(rest) != after {
				t.Errorf("left %q", rest)
			}
		})
	}
}

// What is written is read back, and whatever is read is no crash and takes no
// byte that is not its own.
func FuzzHeader(f *testing.F) {
	for _, version := range []int{1, 2} {
		for _, a := range []string{"192.0.2.7:4711", "[2001:db8::1]:1"} {
			f.Add(appendHeader(nil, version, netip.MustParseAddrPort(a), netip.MustParseAddrPort("198.51.100.1:443")))
		}
	}
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		source, destination, local, err := readHeader(r)
		if err != nil || local {
			return
		}
		used := len(in) - r.Len()
		for _, version := range []int{1, 2} {
			again := appendHeader(nil, version, source, destination)
			s, d, _, err := readHeader(bytes.NewReader(again))
			if err != nil || s != source || d != destination {
				t.Fatalf("version %d: %q of %q is read as %v %v %v", version, again, in[:used], s, d, err)
			}
		}
	})
}
