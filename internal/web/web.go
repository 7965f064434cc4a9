// Package web is syncd's HTTP server: metrics for Prometheus, the health
// endpoints, reload, and the API that the commands use. It knows the rest of the program
// only by the functions it is given, and serves no secret.
package web

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what a Server needs. All fields without a stated default are required.
type Config struct {
	Listen   string // host:port
	Version  string
	Log      *slog.Logger
	Gatherer prometheus.Gatherer
	// Ready says why syncd is not ready (nil: it is), and what else an operator
	// should know, a line each.
	Ready func() (notes []string, err error)
	// Status is what /api/v1/status shows, rendered as JSON.
	Status func() any
	// Actions are the commands of /api/v1, by name.
	Actions map[string]Action
	// Downloads are those of them whose answer is too large to be made in memory.
	Downloads map[string]Download
	// Reload reads the configuration again: POST /-/reload. Its error is shown as
	// it is, a problem a line, with the status of an *Error, else as a 400. It may be
	// called concurrently.
	Reload func(ctx context.Context) error
	// APIToken is the bearer token that changes need; it is asked for with each
	// request, so that another one counts at once. Where it is empty changes are allowed on
	// Loopback alone, where nobody but this machine reaches Listen.
	APIToken func() string
	Loopback bool
}

// Server is a bound, not yet running server.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// New binds the address, so that a port that is taken is known before anything
// is polled.
func New(cfg Config) (*Server, error) {
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("server.listen %s: %w: set another address, or \"\" for no server", cfg.Listen, err)
	}
	return newServer(cfg, l), nil
}

func newServer(cfg Config, l net.Listener) *Server {
	return &Server{listener: l, http: &http.Server{
		Handler:           Handler(cfg),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}}
}

// Addr is the address that is bound.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	}
	return nil
}

var index = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>syncd</title></head>
<body><h1>syncd {{.Version}}</h1>
<p>{{if .Reason}}Not ready: {{.Reason}}{{else}}Ready.{{end}}</p>
{{range .Notes}}<p>{{.}}</p>
{{end}}<ul><li><a href="/metrics">Metrics</a></li><li><a href="/-/healthy">Healthy</a></li><li><a href="/-/ready">Ready</a></li><li><a href="/api/v1/status">Status as JSON</a></li></ul>
</body></html>
`))

// Handler serves the paths of contract §8 that exist yet.
func Handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelError), MaxRequestsInFlight: 4,
	}))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "healthy") })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		notes, err := cfg.Ready()
		if err != nil {
			text(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
			return
		}
		text(w, http.StatusOK, strings.Join(append([]string{"ready"}, notes...), "\n"))
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		data := struct {
			Version, Reason string
			Notes           []string
		}{Version: cfg.Version}
		notes, err := cfg.Ready()
		if data.Notes = notes; err != nil {
			data.Reason = err.Error()
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		if err := index.Execute(w, data); err != nil {
			cfg.Log.Debug("index page", "err", err)
		}
	})
	newAPI(cfg).routes(mux)
	return mux
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A client that has gone away is nobody's trouble.
	_, _ = fmt.Fprintln(w, s)
}
