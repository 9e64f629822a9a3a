package proxy

import (
	"net"
	"sync"
	"testing"
	"time"
)

func udpBackend(t *testing.T, name string) Target {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append([]byte(name+" "), buf[:n]...), from) // who does not hear asks again
		}
	})
	t.Cleanup(func() {
		c.Close()
		work.Wait()
	})
	return Target{ID: name, Name: name, Address: c.LocalAddr().String()}
}

func udpPort(address string, targets ...Target) Port {
	return Port{
		ID: "shop/game:27015/udp", Project: "shop", Service: "game", Address: address, Protocol: "udp",
		Groups: []Group{{Aim: "game", Revision: "aaa", Weight: 1, Targets: targets}},
	}
}

// askUDP asks until it is answered: datagrams may be lost.
func askUDP(t *testing.T, c net.Conn, word string) (answer string) {
	t.Helper()
	buf := make([]byte, 1<<16)
	until(t, "an answer to "+word, func() bool {
		if _, err := c.Write([]byte(word)); err != nil {
			return false
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		answer = string(buf[:n])
		return err == nil
	})
	return answer
}

func dialUDP(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAClientKeepsItsTargetOverUDP(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "[::]"} {
		t.Run(host, func(t *testing.T) {
			_, port, err := net.SplitHostPort(free(t, "udp"))
			if err != nil {
				t.Fatal(err)
			}
			a, b := udpBackend(t, "a"), udpBackend(t, "b")
			s := servePorts(t, Options{Drain: time.Millisecond}, udpPort(host+":"+port, a, b))
			got := map[string]int{}
			for range 4 {
				// The answer has to come from the address that was asked, or this socket does not hear it.
				c := dialUDP(t, "127.0.0.2:"+port)
				if host == "127.0.0.1" {
					c = dialUDP(t, "127.0.0.1:"+port)
				}
				first := askUDP(t, c, "hi")
				got[first]++
				for range 3 {
					if again := askUDP(t, c, "hi"); again != first {
						t.Errorf("%s, then %s", first, again)
					}
				}
			}
			if got["a hi"] != 2 || got["b hi"] != 2 {
				t.Errorf("answers: %v", got)
			}
			open := 0
			for _, x := range s.Report().Ports[0].Targets {
				open += x.Open
			}
			if open != 4 {
				t.Errorf("%d sessions are open", open)
			}
		})
	}
}

func TestAnIdleSessionEnds(t *testing.T) {
	a := free(t, "udp")
	p := udpPort(a, udpBackend(t, "a"))
	p.Timeout.Client = 20 * time.Millisecond
	s := servePorts(t, Options{}, p)
	askUDP(t, dialUDP(t, a), "hi")
	until(t, "the session has ended and is counted", func() bool {
		x := s.Report().Ports[0].Targets[0]
		return x.Open == 0 && x.Served.Requests > 0 && x.Served.BytesOut > 0
	})
}

func TestASessionWhoseTargetIsGoneMovesOn(t *testing.T) {
	a := free(t, "udp")
	dead := Target{ID: "dead", Name: "dead", Address: free(t, "udp")}
	servePorts(t, Options{Drain: time.Millisecond}, udpPort(a, dead, udpBackend(t, "b")))
	c := dialUDP(t, a)
	for range 4 {
		if got := askUDP(t, c, "hi"); got != "b hi" {
			t.Errorf("answered %q", got)
		}
	}
}

// A client that goes on sending kept its session with a target that had left, for ever.
func TestASessionLeavesATargetThatHasLeft(t *testing.T) {
	for _, leaving := range []bool{true, false} {
		a := free(t, "udp")
		old, fresh := udpBackend(t, "a"), udpBackend(t, "b")
		s := servePorts(t, Options{Drain: time.Millisecond}, udpPort(a, old))
		c := dialUDP(t, a)
		until(t, "its target answers", func() bool { return askUDP(t, c, "hi") == "a hi" })
		p := udpPort(a, fresh)
		if leaving {
			old.Leaving = true
			s.table(2, udpPort(a, old))
			until(t, "it answers while nobody else is there", func() bool { return askUDP(t, c, "alone") == "a alone" })
			p = udpPort(a, old, fresh)
		}
		s.table(3, p)
		until(t, "the other target answers", func() bool { return askUDP(t, c, "you") == "b you" })
	}
}
