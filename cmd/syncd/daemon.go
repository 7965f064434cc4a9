package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/state"
)

const defaultServer = "http://127.0.0.1:9469"

// errNoDaemon says that nothing answers where the daemon should be.
var errNoDaemon = errors.New("no daemon answers")

// daemon is the running syncd as the commands see it.
type daemon struct {
	base  string
	token string
	http  *http.Client
}

func (e *env) addServerFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&e.server, "server", "", "`URL` of the daemon (default $SYNCD_SERVER, then the configured address)")
}

// serverGiven says that it is not the configuration which tells where the daemon is.
func (e *env) serverGiven() bool { return e.server != "" || e.getenv("SYNCD_SERVER") != "" }

// daemon finds the running daemon: --server, else $SYNCD_SERVER, else the address
// that the configuration has. cfg is nil where the configuration cannot be read;
// then there is no token to send, and the daemon may run on an earlier one.
func (e *env) daemon(cfg *config.Config) (*daemon, error) {
	d := &daemon{base: e.server, http: &http.Client{
		// Asked directly, whatever the environment says: the token is not a proxy's.
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	given := e.serverGiven()
	if d.base == "" {
		d.base = e.getenv("SYNCD_SERVER")
	}
	if cfg != nil {
		d.token = cfg.Server.APIToken.Reveal()
	}
	listen, known := "", cfg != nil
	if known {
		listen = cfg.Server.Listen
	} else if !given {
		listen, known = config.Listen(e.configFile())
	}
	switch {
	case given:
	case !known:
		d.base = defaultServer
	case listen == "":
		return nil, fmt.Errorf("%w: the configuration has no server.listen", errNoDaemon)
	default:
		host, port, err := net.SplitHostPort(listen)
		if err != nil {
			return nil, err
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		d.base = "http://" + net.JoinHostPort(host, port)
	}
	d.base = strings.TrimRight(d.base, "/")
	u, err := url.Parse(d.base)
	if err == nil && u.User != nil {
		return nil, usageError{errors.New("the URL of the daemon holds a user or password, which it does not take: the commands read server.api_token_file")}
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usageError{errors.New("--server or $SYNCD_SERVER is not the URL of a daemon, expected one such as " + defaultServer)}
	}
	return d, nil
}

// refusedError is what the daemon answered instead of doing it.
type refusedError struct {
	status int
	text   string
}

func (e *refusedError) Error() string { return e.text }

// How long a command waits for an answer: one that is done at once, and one that takes
// as long as there is to do. The daemon ends what it does for a caller who goes away.
const (
	quick   = 30 * time.Second
	patient = time.Hour
)

// call asks the daemon and reads its answer into out. Where nothing listens the
// error is errNoDaemon.
func (d *daemon) call(ctx context.Context, method, path string, in, out any) error {
	return d.callWithin(ctx, quick, method, path, in, out)
}

func (d *daemon) callWithin(ctx context.Context, limit time.Duration, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	resp, err := d.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return d.refusal(resp)
	}
	raw, err := d.read(resp)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s does not answer as a syncd would: is it another program? %w", d.base, err)
	}
	return nil
}

// download asks the daemon for a command whose answer is a file, and writes that to
// w. It takes as long as it takes, but never longer than idle without a byte.
func (d *daemon) download(ctx context.Context, path string, in any, w io.Writer) error {
	const idle = time.Minute
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Who takes what w is given may pause as long as he likes: only the daemon is watched.
	watch := time.AfterFunc(idle, func() { cancel(fmt.Errorf("nothing came for %s", idle)) })
	defer watch.Stop()
	resp, err := d.send(ctx, http.MethodPost, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return d.refusal(resp)
	}
	buf := make([]byte, 256<<10)
	for {
		watch.Reset(idle)
		n, err := resp.Body.Read(buf)
		watch.Stop()
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("the answer of %s ended too early: %w", d.base, cmp.Or(context.Cause(ctx), err))
		}
	}
}

// send sends a request. Where nothing listens the error is errNoDaemon.
func (d *daemon) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, body)
	if err != nil {
		return nil, err
	}
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w at %s", errNoDaemon, d.base)
		}
		return nil, fmt.Errorf("ask the daemon at %s: %w", d.base, err)
	}
	return resp, nil
}

func (d *daemon) read(resp *http.Response) ([]byte, error) {
	const most = 64 << 20
	raw, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", d.base, err)
	}
	return raw, nil
}

// refusal is the error for an answer that is not 200.
func (d *daemon) refusal(resp *http.Response) error {
	raw, err := d.read(resp)
	if err != nil {
		return err
	}
	var refusal struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(raw, &refusal) != nil || refusal.Error == "" {
		return fmt.Errorf("%s answers %d, and not as a syncd would: is it another program?", d.base, resp.StatusCode)
	}
	return &refusedError{status: resp.StatusCode, text: refusal.Error}
}

// either asks the running daemon; where none answers it works alone, on the closed
// state file and by the given configuration. It makes no new file: in the wrong folder,
// or with another configuration, that would look like success.
func (e *env) either(ask func(d *daemon) error, alone func(cfg *config.Config) error) error {
	cfg, cfgErr := e.quietConfig()
	d, err := e.daemon(cfg)
	if err == nil {
		err = ask(d)
	}
	if !errors.Is(err, errNoDaemon) {
		return err
	}
	if cfgErr != nil {
		return cfgErr
	}
	if _, statErr := os.Stat(cfg.State.Path); errors.Is(statErr, fs.ErrNotExist) {
		return fmt.Errorf("%w, and there is no state file at %s: is %s the right configuration? `syncd run` and `syncd once` begin a new state", err, cfg.State.Path, cfg.Files[0])
	}
	return lockedBy(alone(cfg), err)
}

// lockedBy adds to a locked state file that its daemon does not answer.
func lockedBy(err, noDaemon error) error {
	if errors.Is(err, state.ErrLocked) {
		return fmt.Errorf("%w (%w: is --server right?)", err, noDaemon)
	}
	return err
}

// quietConfig is the configuration for a command that talks to the daemon: its
// warnings are the daemon's to print. With an error it is nil: whatever is wrong
// with it, a daemon may run on an earlier one.
func (e *env) quietConfig() (*config.Config, error) {
	quiet := *e
	quiet.stderr = io.Discard
	return quiet.loadConfig()
}
