package proxy

import (
	"context"
	"io"
	"net"
	"testing"
)

// BenchmarkPort carries bytes through a TCP port, beside a copy without it.
func BenchmarkPort(b *testing.B) {
	sink, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer sink.Close()
	go func() {
		for {
			c, err := sink.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(io.Discard, c)
				_, _ = c.Write([]byte{1})
			}()
		}
	}()
	send := func(b *testing.B, address string) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		block := make([]byte, 1<<20)
		b.SetBytes(1 << 20)
		for b.Loop() {
			if _, err := c.Write(block); err != nil {
				b.Fatal(err)
			}
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("direct", func(b *testing.B) { send(b, sink.Addr().String()) })
	b.Run("port", func(b *testing.B) {
		s, err := New(Options{})
		if err != nil {
			b.Fatal(err)
		}
		var address string
		s.o.Listen = func(ctx context.Context, network, _ string) (net.Listener, error) {
			l, err := new(net.ListenConfig).Listen(ctx, network, "127.0.0.1:0")
			if err == nil {
				address = l.Addr().String()
			}
			return l, err
		}
		ctx, cancel := context.WithCancel(b.Context())
		drain := s.startPorts(ctx)
		a := sink.Addr().String()
		if err := s.Set(Table{Format: Format, Version: 1, Ports: []Port{{
			ID: "p", Address: "127.0.0.1:1", Protocol: "tcp", Groups: []Group{{Aim: "a", Weight: 1, Targets: []Target{{ID: a, Name: a, Address: a}}}},
		}}}); err != nil {
			b.Fatal(err)
		}
		send(b, address)
		cancel()
		drain(b.Context())
	})
}
