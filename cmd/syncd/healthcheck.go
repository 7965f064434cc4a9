package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealthcheck(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Exit 0 when the daemon is ready", Args: noArgs,
		Long: `Healthcheck asks the running daemon whether it is ready, and exits 0 if so and 1 if
not. It is for Docker's HEALTHCHECK and the like. It asks --server, else
$SYNCD_SERVER, else the address that the configuration has, else ` + defaultServer + `.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.healthcheck(cmd.Context()) },
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	return cmd
}

func (e *env) healthcheck(ctx context.Context) error {
	cfg, cfgErr := e.quietConfig()
	d, err := e.daemon(cfg)
	if err == nil {
		err = e.askReady(ctx, d)
	}
	if err != nil && cfgErr != nil && !e.serverGiven() {
		// As text: an exit code other than 0 and 1 means something else to Docker.
		return fmt.Errorf("%w; the configuration cannot be used, which may be why: %v", err, cfgErr)
	}
	return err
}

func (e *env) askReady(ctx context.Context, d *daemon) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("no answer within 5s"))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/-/ready", nil)
	if err != nil {
		return err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return fmt.Errorf("no daemon answers: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("%s: %w", d.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", d.base, resp.StatusCode, strings.TrimSpace(string(body)))
	}
	_, err = fmt.Fprintln(e.stdout, "ready")
	return err
}
