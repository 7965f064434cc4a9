package sink_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

// proxySecrets are what must not be seen of the proxy in these tests.
var proxySecrets = []string{"proxy-user", "proxy-word", "cHJveHktdXNlc", testSecret[6:]}

const proxyAuth = "Basic cHJveHktdXNlcjpwcm94eS13b3Jk" // proxy-user:proxy-word

// dialTo stands in for the network: w is connected to server whatever it asks
// for, and last is what it asked for last.
func dialTo(w *sink.Webhook, server string) (last *string) {
	last = new(string)
	w.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		*last = addr
		return new(net.Dialer).DialContext(ctx, network, server)
	})
	return last
}

// through sends an event by the proxy, for which addr stands in.
func through(t *testing.T, w *sink.Webhook, addr string) {
	t.Helper()
	asked := dialTo(w, addr)
	if e := send(t, w); e != nil {
		t.Error(e)
	}
	if *asked != "proxy.example:3128" {
		t.Errorf("connected to %s", *asked)
	}
}

// The proxy of the environment is used, for plain and for encrypted receivers,
// but where NO_PROXY excepts them, and what it asks of us is shown to nobody.
// net/http reads the environment once, so that the test needs a new process.
func TestWebhookProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy-user:proxy-word@proxy.example:3128")
	t.Setenv("HTTPS_PROXY", "http://proxy-user:proxy-word@proxy.example:3128")
	t.Setenv("NO_PROXY", "direct.example,.inside.example")
	if alone(t) {
		return
	}
	ca := newAuthority(t)
	certificate := ca.server(t, "receiver.example", time.Now().Add(time.Hour))
	plain := func(url string) *sink.Webhook {
		return newWebhook(t, sink.WebhookConfig{URL: url, Secrets: []string{testSecret}})
	}
	encrypted := func() *sink.Webhook {
		return newWebhook(t, sink.WebhookConfig{URL: "https://receiver.example/hook", Secrets: []string{testSecret}, RootCAs: pemOf(ca.cert)})
	}

	t.Run("plain", func(t *testing.T) {
		addr := rawServer(t, func(c net.Conn) {
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				t.Error(err)
				return
			}
			if r.RequestURI != "http://receiver.example/hook" || r.Header.Get("Proxy-Authorization") != proxyAuth || r.Header.Get("Webhook-Signature") == "" {
				t.Errorf("the proxy got %s, %v", r.RequestURI, r.Header)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
		through(t, plain("http://receiver.example/hook"), addr)
	})

	t.Run("encrypted", func(t *testing.T) {
		addr := rawServer(t, func(c net.Conn) {
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				t.Error(err)
				return
			}
			if r.Method != "CONNECT" || r.RequestURI != "receiver.example:443" || r.Header.Get("Proxy-Authorization") != proxyAuth || r.Header.Get("Webhook-Id") != "" {
				t.Errorf("the proxy got %s %s, %v", r.Method, r.RequestURI, r.Header)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			inner := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})
			r, err = http.ReadRequest(bufio.NewReader(inner))
			if err != nil {
				t.Error(err)
				return
			}
			if r.RequestURI != "/hook" || r.Header.Get("Webhook-Signature") == "" || r.Header.Get("Proxy-Authorization") != "" {
				t.Errorf("the receiver got %s, %v", r.RequestURI, r.Header)
			}
			io.WriteString(inner, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
		through(t, encrypted(), addr)
	})

	t.Run("excepted", func(t *testing.T) {
		addr := rawServer(t, func(c net.Conn) {
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil || r.RequestURI != "/hook" || r.Header.Get("Proxy-Authorization") != "" {
				t.Errorf("the receiver got %v, %v", r, err)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
		for _, host := range []string{"direct.example:80", "a.inside.example:80"} {
			w := plain("http://" + strings.TrimSuffix(host, ":80") + "/hook")
			asked := dialTo(w, addr)
			if e := send(t, w); e != nil || *asked != host {
				t.Errorf("connected to %s for %s: %v", *asked, host, e)
			}
		}
	})

	// A proxy that refuses, and sends back who we said we are.
	refusing := rawServer(t, func(c net.Conn) {
		defer c.Close()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		told := r.Header.Get("Proxy-Authorization") + " proxy-user:proxy-word"
		fmt.Fprintf(c, "HTTP/1.1 407 %s\r\nX: %[1]s\r\nContent-Length: %d\r\n\r\n%[1]s", told, len(told))
		io.Copy(io.Discard, c)
	})
	malformed := rawServer(t, func(c net.Conn) {
		defer c.Close()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.WriteString(c, r.Header.Get("Proxy-Authorization")+" proxy-user:proxy-word\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	for name, addr := range map[string]string{"refusing": refusing, "malformed": malformed, "unreachable": "127.0.0.1:1"} {
		for _, w := range []*sink.Webhook{plain("http://receiver.example/hook"), encrypted()} {
			dialTo(w, addr)
			err := w.Deliver(t.Context(), sinktest.Events(1))
			if err == nil {
				t.Errorf("%s: delivered", name)
			}
			sinktest.AssertNoSecret(t, err, proxySecrets...)
		}
	}
}

// Where net/http refuses the environment's proxy, as it does in CGI, the sink does
// too, and does not quote it.
func TestWebhookProxyRefused(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy-user:proxy-word@proxy.example:3128")
	t.Setenv("REQUEST_METHOD", "GET")
	if alone(t) {
		return
	}
	_, err := sink.NewWebhook(sink.WebhookConfig{URL: "http://receiver.example/", Unsigned: true})
	if err == nil || !strings.Contains(err.Error(), "HTTP_PROXY") {
		t.Errorf("%v", err)
	}
	sinktest.AssertNoSecret(t, err, proxySecrets...)
}
