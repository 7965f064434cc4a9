package sink

import (
	"context"
	"net"
)

// Sign signs with one secret as Deliver does.
func Sign(secret, id, timestamp string, body []byte) (string, error) {
	key, err := parseSecret(secret)
	if err != nil {
		return "", err
	}
	return newSigner([][]byte{key}).sign(id, timestamp, body), nil
}

// ParseRetryAfter is the reading of a Retry-After header.
var ParseRetryAfter = parseRetryAfter

// SetDial makes w connect by dial, to a server without a socket.
func (w *Webhook) SetDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	w.transport.DialContext = dial
}
