package edge

import (
	"net"
	"os"
)

// notify tells systemd, where that started the edge, what it waits for:
// NOTIFY_SOCKET is sd_notify(3)'s protocol. Elsewhere it does nothing.
func notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
