package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sandbox"
	"syncd/internal/sink"
)

// demoHistory is how much of the sandbox's past the demo shows: enough to fill
// the screen at once, not so much that the news scrolls away.
const demoHistory = 3 * time.Hour

func newDemo(e *env) *cobra.Command {
	var duration time.Duration
	var dir string
	cmd := &cobra.Command{
		Use: "demo", Short: "Show everything at work against a simulated marketplace", Args: noArgs,
		Long: `Demo polls two accounts of the built-in sandbox, prints each event as one line, and
writes a file sink, all in one directory. It needs no account and no network. Ctrl-C
ends it and prints what was polled, emitted and spent, and how near the budget it came.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.demo(cmd.Context(), duration, dir) },
	}
	cmd.Flags().Var((*durationFlag)(&duration), "duration", "end by itself after `D`; without it, at Ctrl-C")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` for its files, empty or new (default: a new one in the temporary directory)")
	return cmd
}

func (e *env) demo(ctx context.Context, duration time.Duration, dir string) (err error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	if duration > 0 {
		// No deadline: a request that has to wait longer is not an error.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer time.AfterFunc(duration, cancel).Stop()
	}
	if dir, err = makeDir(dir, "syncd-demo-"); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "syncd.db")); err == nil {
		return usageError{fmt.Errorf("--dir %s holds the state of another run: give an empty directory or a new one, since the demo begins anew each time", dir)}
	}
	sb, err := sandbox.New(sandbox.Demo(uint64(time.Now().UnixNano())))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	start := time.Now().Add(-demoHistory).UTC().Format(time.RFC3339)
	path, err := simulatedConfig{dir: dir, url: "http://" + l.Addr().String(), start: start, log: "warn"}.write(sb)
	if err != nil {
		return err
	}
	quiet := *e
	quiet.configPath = path
	cfg, err := quiet.loadConfig()
	if err != nil {
		return err
	}
	a, err := build(cfg, newLogger(e.stderr, e.getenv, cfg.Log), e.stdout, true, delivery.Sink{
		Name: "screen", Type: "screen", Sink: &screen{w: e.stdout, color: isTerminal(e.stdout) && e.getenv("NO_COLOR") == ""}, FromBeginning: true,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "Two simulated Wildberries accounts, polled within their budget. Files: %s. Ctrl-C ends it.\n\n", dir)
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.serve(gctx, nil) })
	g.Go(func() error { return serveSandbox(gctx, l, sb) })
	err = g.Wait()
	if errors.Is(err, errSlowShutdown) {
		return err
	}
	return errors.Join(err, e.summary(a, sb, dir, time.Since(began)), a.close())
}

// summary prints what was polled, emitted and spent.
func (e *env) summary(a *app, sb *sandbox.Sandbox, dir string, took time.Duration) error {
	counts, err := gather(a.registry)
	if err != nil {
		return err
	}
	stats := sb.Stats()
	t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nIn %s:\n\nSTREAM\tREQUESTS\tITEMS READ\tNEW\tCHANGED\n", took.Round(time.Second))
	for _, account := range a.cfg.Accounts {
		for _, s := range account.Streams {
			if !s.Enabled {
				continue
			}
			of := func(family string, label ...string) float64 {
				return counts.sum(family, append([]string{"account", account.Name, "stream", s.Name}, label...)...)
			}
			fmt.Fprintf(t, "%s/%s\t%.0f\t%.0f\t%.0f\t%.0f\n", account.Name, s.Name, of("syncd_api_requests_total"), of("syncd_items_total"),
				of("syncd_items_total", "action", "created"), of("syncd_items_total", "action", "updated"))
		}
	}
	fmt.Fprintln(t, "\nBUDGET\tREQUESTS\tREFUSED BY THE API\tVIOLATIONS\tCLOSEST REQUEST")
	for _, b := range stats.Buckets {
		near := "-"
		if b.ClosestCall != nil {
			near = fmt.Sprintf("%s after it was allowed", b.ClosestCall.Round(time.Millisecond))
		}
		fmt.Fprintf(t, "%s, %s\t%d\t%d\t%d\t%s\n", b.SellerName, b.Group, b.Requests, b.Refused, b.Violations, near)
	}
	fmt.Fprintf(t, "\nEmitted:\t%.0f events, each once in %s\n", counts.sum("syncd_sink_events_total", "sink", "archive", "outcome", "acknowledged"), filepath.Join(dir, "events.ndjson"))
	return t.Flush()
}

// screen is the demo's sink: each event as one readable line.
type screen struct {
	w     io.Writer
	color bool
}

var _ sink.Sink = (*screen)(nil)

func (s *screen) Close() error { return nil }

func (s *screen) Deliver(_ context.Context, events []event.Logged) error {
	var b strings.Builder
	for i := range events {
		s.line(&b, &events[i])
	}
	_, err := io.WriteString(s.w, b.String())
	return err
}

func (s *screen) line(b *strings.Builder, e *event.Logged) {
	kind := strings.TrimPrefix(e.Type, "wildberries.")
	paint, reset := "", ""
	if s.color {
		reset = "\x1b[0m"
		switch {
		case e.Backfill:
			paint = "\x1b[2m"
		case strings.HasSuffix(kind, ".updated"):
			paint = "\x1b[33m"
		default:
			paint = "\x1b[32m"
		}
	}
	when, text := describe(e.JSON)
	note := ""
	if e.Backfill {
		note = " (history)"
	}
	fmt.Fprintf(b, "%s  %-7s %s%-19s%s %s%s\n", when, e.Account, paint, kind, reset, text, note)
}

// describe finds when an event happened and what a person would want to read of
// it.
func describe(line []byte) (when, text string) {
	var e struct {
		Time time.Time `json:"time"`
		Data struct {
			Item struct {
				Text    string `json:"text"`
				Rating  int    `json:"productValuation"`
				Message struct {
					Text        string          `json:"text"`
					Attachments json.RawMessage `json:"attachments"`
				} `json:"message"`
				Sender      string `json:"sender"`
				ClientName  string `json:"clientName"`
				LastMessage struct {
					Text string `json:"text"`
				} `json:"lastMessage"`
				UserComment string `json:"user_comment"`
				FeedbackID  string `json:"feedbackId"`
				State       string `json:"state"`
				Answer      *struct {
					Text string `json:"text"`
				} `json:"answer"`
			} `json:"item"`
		} `json:"data"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return "--:--:--", "(an item of another form)"
	}
	it := e.Data.Item
	switch {
	case it.Sender != "":
		text = cmp.Or(it.ClientName, it.Sender) + ": " + it.Message.Text
		if it.Message.Text == "" && it.Message.Attachments != nil {
			text += "(attachment)"
		}
	case it.FeedbackID != "":
		text = "review " + it.FeedbackID + " " + it.State
	case it.UserComment != "":
		text = it.UserComment
	case it.Rating > 0:
		text = strings.Repeat("★", min(it.Rating, 5)) + " " + it.Text
	default:
		text = cmp.Or(it.Text, it.ClientName+": "+it.LastMessage.Text)
	}
	if it.Answer != nil {
		text += " → " + it.Answer.Text
	}
	// A stranger's text must not reach the terminal as a control sequence.
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 90 {
		text = string(r[:89]) + "…"
	}
	return e.Time.Local().Format(time.TimeOnly), text
}
