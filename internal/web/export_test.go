package web

import "net"

// NewOn is New on a listener of the test's own.
func NewOn(cfg Config, l net.Listener) *Server { return newServer(cfg, l) }
