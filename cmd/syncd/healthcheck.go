package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const defaultServer = "http://127.0.0.1:9469"

func newHealthcheck(e *env) *cobra.Command {
	var server string
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Exit 0 when the daemon is ready", Args: noArgs,
		Long: `Healthcheck asks the running daemon whether it is ready, and exits 0 if so and 1 if
not. It is for Docker's HEALTHCHECK and the like. It asks --server, else
$SYNCD_SERVER, else the address that the configuration has, else ` + defaultServer + `.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.healthcheck(cmd.Context(), server) },
	}
	e.addConfigFlag(cmd)
	cmd.Flags().StringVar(&server, "server", "", "`URL` of the daemon (default $SYNCD_SERVER, then the configured address)")
	return cmd
}

// serverURL finds the running daemon.
func (e *env) serverURL(flag string) (string, error) {
	if flag == "" {
		flag = e.getenv("SYNCD_SERVER")
	}
	if flag != "" {
		return strings.TrimRight(flag, "/"), nil
	}
	quiet := *e
	quiet.stderr = io.Discard // its warnings are the daemon's to print
	cfg, err := quiet.loadConfig()
	if err != nil {
		return defaultServer, nil // whatever is wrong with it, the daemon may run on an earlier one
	}
	if cfg.Server.Listen == "" {
		return "", errors.New("the configuration has no server.listen: nothing to ask")
	}
	host, port, err := net.SplitHostPort(cfg.Server.Listen)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port), nil
}

func (e *env) healthcheck(ctx context.Context, flag string) error {
	server, err := e.serverURL(flag)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("no answer within 5s"))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/-/ready", nil)
	if err != nil {
		return usageError{fmt.Errorf("--server: %w", err)}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no daemon answers: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("%s: %w", server, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", server, resp.StatusCode, strings.TrimSpace(string(body)))
	}
	_, err = fmt.Fprintln(e.stdout, "ready")
	return err
}
