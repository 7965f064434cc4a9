package sourcetest

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"syncd/internal/sources/apiclient"
)

// Epoch is where the clock of a test in a bubble is set: the bubble's own begins
// before any marketplace was open.
var Epoch = time.Date(2026, 2, 2, 20, 0, 0, 0, time.UTC)

// SetClock brings the clock of a synctest bubble to Epoch.
func SetClock() { time.Sleep(time.Until(Epoch)) }

// Network is a network without sockets, which works in a synctest bubble. Every
// address leads to the one server.
type Network struct {
	accepted chan net.Conn
	gone     chan struct{}
	once     sync.Once
}

var _ net.Listener = (*Network)(nil)

// NewNetwork returns a network that is gone when the test ends.
func NewNetwork(t testing.TB) *Network {
	n := &Network{accepted: make(chan net.Conn), gone: make(chan struct{})}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// Serve answers with handler until the test ends.
func (n *Network) Serve(t testing.TB, handler http.Handler) {
	var wg sync.WaitGroup
	tracked := func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		handler.ServeHTTP(w, r)
	}
	server := &http.Server{Handler: http.HandlerFunc(tracked), ErrorLog: log.New(io.Discard, "", 0)}
	wg.Go(func() { _ = server.Serve(n) })
	t.Cleanup(func() {
		_ = server.Close()
		wg.Wait()
	})
}

// Transport is a transport as the daemon has it, on this network.
func (n *Network) Transport(t testing.TB) *http.Transport {
	tr := apiclient.NewTransport()
	tr.Proxy = nil
	tr.DialContext = n.Dial
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// Dial connects to the server.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case n.accepted <- server:
		return client, nil
	case <-n.gone:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (n *Network) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepted:
		return c, nil
	case <-n.gone:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (n *Network) Close() error {
	n.once.Do(func() { close(n.gone) })
	return nil
}

// Addr implements net.Listener.
func (n *Network) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }
