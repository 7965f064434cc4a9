package sink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
)

// Sign signs with one secret as Deliver does.
func Sign(secret, id, timestamp string, body []byte) (string, error) {
	key, err := parseSecret(secret)
	if err != nil {
		return "", err
	}
	return sign([][]byte{key}, id, timestamp, body), nil
}

// ParseRetryAfter is the reading of a Retry-After header.
var ParseRetryAfter = parseRetryAfter

// SetDial makes w connect by dial, to a server without a socket.
func (w *Webhook) SetDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	w.transport.DialContext = dial
}

// SetRootCAs makes w trust the certificates of a test server.
func (w *Webhook) SetRootCAs(pool *x509.CertPool) {
	w.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
}
