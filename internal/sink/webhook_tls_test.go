package sink_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// An authority is a private CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: time.Now().Add(time.Hour),
	})
	return a
}

// sign makes a certificate of a, or one that signs itself if a has none yet.
func (a *authority) sign(t *testing.T, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(1)
	c.NotBefore = time.Now().Add(-2 * time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// server returns a server's certificate for a name or an address.
func (a *authority) server(t *testing.T, host string, until time.Time) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	cert, key := a.sign(t, c)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// serveTLS starts a receiver that speaks no newer TLS than max; 0: any.
func serveTLS(t *testing.T, cert tls.Certificate, max uint16, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about distrust
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: max}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// Nothing is sent to who cannot prove to be the receiver, and it is no reason to
// give an event up.
func TestWebhookTLS(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	both := append(pemOf(other.cert), pemOf(ours.cert)...)
	for _, test := range []struct {
		name  string
		cert  tls.Certificate
		roots []byte
		max   uint16 // the newest TLS of the receiver; 0: any
		want  string // of the error; empty: delivered
	}{
		{"private CA", ours.server(t, "127.0.0.1", later), pemOf(ours.cert), 0, ""},
		{"one of several CAs", ours.server(t, "127.0.0.1", later), both, 0, ""},
		{"TLS 1.2", ours.server(t, "127.0.0.1", later), both, tls.VersionTLS12, ""},
		{"unknown to the system", ours.server(t, "127.0.0.1", later), nil, 0, "unknown authority"},
		{"unknown CA", ours.server(t, "127.0.0.1", later), pemOf(other.cert), 0, "unknown authority"},
		{"expired", ours.server(t, "127.0.0.1", before), both, 0, "expired"},
		{"wrong name", ours.server(t, "elsewhere.example", later), both, 0, "doesn't contain any IP SANs"},
		{"TLS 1.1", ours.server(t, "127.0.0.1", later), both, tls.VersionTLS11, "protocol version"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests atomic.Int32
			server := serveTLS(t, test.cert, test.max, func(http.ResponseWriter, *http.Request) { requests.Add(1) })
			cfg := leakyConfig("https", server.Listener.Addr().String())
			cfg.RootCAs = test.roots
			err := newWebhook(t, cfg).Deliver(t.Context(), sinktest.Events(1))
			sinktest.AssertNoSecret(t, err, forbidden...)
			if test.want == "" {
				if err != nil || requests.Load() != 1 {
					t.Errorf("%v, %d requests", err, requests.Load())
				}
				return
			}
			if e := sink.AsError(err); err == nil || e.Kind != sink.Temporary || e.Status != 0 || !strings.Contains(e.Error(), test.want) {
				t.Errorf("%+v; want %s", e, test.want)
			}
			if n := requests.Load(); n != 0 {
				t.Errorf("%d requests arrived", n)
			}
		})
	}
	t.Run("plain HTTP on the port", func(t *testing.T) {
		server := httptest.NewServer(http.NotFoundHandler())
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		defer server.Close()
		err := newWebhook(t, leakyConfig("https", server.Listener.Addr().String())).Deliver(t.Context(), sinktest.Events(1))
		sinktest.AssertNoSecret(t, err, forbidden...)
		if e := sink.AsError(err); err == nil || e.Kind != sink.Temporary || !strings.Contains(e.Error(), "speaks HTTP on this port") {
			t.Errorf("%+v", e)
		}
	})
}

// The CA of a sink stands instead of the system's, not beside them.
func TestWebhookCAReplacesSystemRoots(t *testing.T) {
	const rootsEnv = "SYNCD_TEST_ROOTS"
	file := os.Getenv(rootsEnv)
	if file == "" { // what the system trusts is read once a process
		dir := t.TempDir()
		file = filepath.Join(dir, "roots.pem")
		t.Setenv(rootsEnv, file)
		t.Setenv("SSL_CERT_FILE", file)
		t.Setenv("SSL_CERT_DIR", dir)
		alone(t)
		return
	}
	public, private := newAuthority(t), newAuthority(t)
	if err := os.WriteFile(file, pemOf(public.cert), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		issuer  *authority
		roots   []byte
		trusted bool
	}{
		{"system", public, nil, true},
		{"unknown to the system", private, nil, false},
		{"private", private, pemOf(private.cert), true},
		{"system, with a private CA given", public, pemOf(private.cert), false},
	} {
		server := serveTLS(t, test.issuer.server(t, "127.0.0.1", time.Now().Add(time.Hour)), 0, func(http.ResponseWriter, *http.Request) {})
		if e := send(t, newWebhook(t, sink.WebhookConfig{URL: server.URL, RootCAs: test.roots})); (e == nil) != test.trusted {
			t.Errorf("%s: %v", test.name, e)
		}
	}
}

// Who takes the connection and then says nothing is left after ten seconds.
func TestWebhookTLSTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := inBubble(t, sink.WebhookConfig{URL: "https://receiver.example/", Timeout: time.Minute}, nil, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() })
		start := time.Now()
		e := send(t, w)
		if took := time.Since(start); took != 10*time.Second || e == nil || !strings.Contains(e.Error(), "TLS handshake timeout") {
			t.Errorf("after %v: %v", took, e)
		}
	})
}
