package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/event"
	"syncd/internal/state"
)

// exportArgs are the arguments of export: Records or Events.
type exportArgs struct {
	Records bool   `json:"records,omitempty"`
	Events  bool   `json:"events,omitempty"`
	Account string `json:"account,omitempty"`
	Stream  string `json:"stream,omitempty"`
}

// exportedRecord is a line of `export --records`; the item follows as it is.
type exportedRecord struct {
	Account     string    `json:"account"`
	Stream      string    `json:"stream"`
	ID          string    `json:"id"`
	Kind        string    `json:"kind"`
	Version     uint64    `json:"version"`
	Fingerprint string    `json:"fingerprint"`
	Created     time.Time `json:"created,omitzero"`
	Changed     time.Time `json:"changed,omitzero"`
	Removed     bool      `json:"removed,omitempty"`
}

func (in *exportArgs) check() error {
	if in.Records == in.Events {
		return errors.New("either --records or --events is needed")
	}
	return nil
}

// export writes what is kept to w, a line each. It reads in many short transactions, none of
// which is open while it writes: who reads may pause as long as he likes, and holds up nobody.
func (k *desk) export(ctx context.Context, in exportArgs, w io.Writer) error {
	if err := in.check(); err != nil {
		return refuse(http.StatusBadRequest, "%w", err)
	}
	out := bufio.NewWriterSize(w, 32<<10)
	some := false
	write := func(raw []byte) error {
		some = true
		out.Write(raw) // an error stays
		return out.WriteByte('\n')
	}
	var err error
	if in.Events {
		err = k.db.ExportEvents(ctx, func(h event.Header) bool { return matches(h, in.Account, in.Stream) }, func(e event.Logged) error { return write(e.JSON) })
	} else {
		err = k.db.ExportRecords(ctx, in.Account, in.Stream, func(r state.Record) error {
			raw, err := recordLine(r)
			if err != nil {
				return err
			}
			return write(raw)
		})
	}
	if err == nil && !some {
		return k.knownStreams(in.Account, in.Stream)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

// recordLine renders a record. Its item is kept as the marketplace sent it, which no encoder
// of ours promises.
func recordLine(r state.Record) ([]byte, error) {
	raw, err := encode(exportedRecord{
		Account: r.Account, Stream: r.Stream, ID: r.ID, Kind: r.Kind, Version: r.Version, Fingerprint: r.Fingerprint,
		Created: utc(r.Created), Changed: utc(r.Changed), Removed: r.Removed,
	})
	if err != nil || r.Item == nil { // the body is kept for keep_records
		return raw, err
	}
	raw = append(raw[:len(raw)-1], `,"item":`...)
	return append(append(raw, r.Item...), '}'), nil
}

// encode renders JSON on one line without escapes for HTML, which nobody here reads.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// accounts are those that are configured, or of which something is known.
func (k *desk) accounts() ([]string, error) {
	sellers, err := k.db.Sellers()
	names := slices.Collect(maps.Keys(sellers))
	for _, a := range k.cfg.Accounts {
		names = append(names, a.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// knownStreams refuses an account or a stream of which nothing was found if it does not
// exist: it is a slip of the pen. Empty: any.
func (k *desk) knownStreams(account, stream string) error {
	accounts, err := k.accounts()
	if err != nil {
		return err
	}
	if account != "" && !slices.Contains(accounts, account) {
		return refuse(http.StatusNotFound, "there is no account %.100q; %s", account, thereAre(accounts))
	}
	var streams []string
	for _, m := range marketplaces {
		for _, s := range m.streams {
			streams = append(streams, s.Name)
		}
	}
	slices.Sort(streams)
	if streams = slices.Compact(streams); stream != "" && !slices.Contains(streams, stream) {
		return refuse(http.StatusNotFound, "there is no stream %.100q; %s", stream, thereAre(streams))
	}
	return nil
}

func newExport(e *env) *cobra.Command {
	var in exportArgs
	cmd := &cobra.Command{
		Use: "export (--records | --events) [--account A] [--stream S]", Short: "Write what is kept as lines of JSON", Args: noArgs,
		Long: `Export writes to standard output, a line each, the records that syncd keeps of items (their
last version), or the events of its log, exactly as sinks get them. A running daemon goes on
meanwhile; what changes on the way may be seen before or after. If it does not come to its
end, what was written is a part and the exit code is 1.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := in.check(); err != nil {
				return usageError{err}
			}
			return e.export(cmd.Context(), in)
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	cmd.Flags().BoolVar(&in.Records, "records", false, "the records of items")
	cmd.Flags().BoolVar(&in.Events, "events", false, "the events of the log")
	cmd.Flags().StringVar(&in.Account, "account", "", "only those of the account of this `name`")
	cmd.Flags().StringVar(&in.Stream, "stream", "", "only those of the stream of this `name`")
	return cmd
}

func (e *env) export(ctx context.Context, in exportArgs) error {
	out := &lineCount{w: e.stdout}
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { e.showExport(watching, out) })
	defer func() {
		stop()
		watch.Wait()
	}()
	err := e.either(func(d *daemon) error {
		return d.download(ctx, "/api/v1/export", in, out)
	}, func(cfg *config.Config) error {
		return atClosed(cfg, func(k *desk) error { return k.export(ctx, in, out) })
	})
	if err != nil && out.bytes.Load() > 0 {
		return fmt.Errorf("not everything was exported, only %s: %w", out, err)
	}
	return err
}

// exportSays is how often an export says how far it is where there is no bar.
const exportSays = 30 * time.Second

// showExport shows how far an export is: beside the lines themselves there is no room.
func (e *env) showExport(ctx context.Context, out *lineCount) {
	if isTerminal(e.stdout) {
		return
	}
	if show := newProgress(e.stderr); show.terminal {
		show.Run(ctx, func() []work { return []work{{name: "export", items: int(out.lines.Load())}} })
		return
	}
	tick := time.NewTicker(exportSays)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			fmt.Fprintln(e.stderr, "exported so far:", out)
		}
	}
}

// lineCount counts what goes through it.
type lineCount struct {
	w            io.Writer
	lines, bytes atomic.Int64
}

func (c *lineCount) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.lines.Add(int64(bytes.Count(b[:n], []byte("\n"))))
	c.bytes.Add(int64(n))
	return n, err
}

func (c *lineCount) String() string {
	return fmt.Sprintf("%s, %.1f MB", plural(int(c.lines.Load()), "line"), float64(c.bytes.Load())/1e6)
}
