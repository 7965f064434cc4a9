package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/state"
)

// letterArgs are the arguments of the commands about dead letters. An empty ID: all
// of them, which retry and drop want said.
type letterArgs struct {
	Sink string `json:"sink"`
	ID   string `json:"id,omitempty"`
	All  bool   `json:"all,omitempty"`
}

// letterCount is what retry and drop answer.
type letterCount struct {
	Count int    `json:"dead_letters"`
	Waits string `json:"waits_for,omitempty"` // what keeps the sink from sending them
}

// listArgs are those of list: the page that begins behind a dead letter.
type listArgs struct {
	Sink   string `json:"sink"`
	ID     string `json:"id,omitempty"`
	After  uint64 `json:"after,omitempty"` // as the page before says
	Events bool   `json:"events,omitempty"`
}

type letterPage struct {
	Letters []deadLetter `json:"dead_letters"`
	Next    uint64       `json:"next,omitempty"` // of the next page; 0: this is the last
}

// deadLetter is one as the list shows it.
type deadLetter struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Subject  string    `json:"subject"`
	Attempts int       `json:"attempts"`
	Status   int       `json:"last_status,omitempty"` // 0: there was no answer
	Answer   string    `json:"last_answer,omitempty"` // a piece of it, or why there was none
	First    time.Time `json:"first_attempt,omitzero"`
	Last     time.Time `json:"last_attempt,omitzero"`
	Died     time.Time `json:"died"`
	Reason   string    `json:"reason"`
	Retrying bool      `json:"retrying,omitempty"`
	// Event is the event's line, where it was asked for. In the daemon's answer it is text: it was
	// written by strangers, and may be nested as deep as it likes.
	Event string `json:"event,omitempty"`
}

const (
	lettersAtOnce = 500             // of a page; the state bounds their bytes
	listFor       = 5 * time.Second // a caller asks again, from there on
	answerMost    = 500             // characters of an answer
	answerShown   = 80              // of them in a table
)

// letters returns a page of a sink's dead letters.
func (k *desk) letters(ctx context.Context, in listArgs) (letterPage, error) {
	out := letterPage{Letters: []deadLetter{}}
	if _, err := k.knownSink(in.Sink); err != nil {
		return out, err
	}
	if err := k.mayHaveLetters(in.Sink); err != nil {
		return out, err
	}
	for began, after := time.Now(), in.After; ; {
		page, err := k.db.DeadLetters(in.Sink, after, lettersAtOnce)
		if err != nil || len(page) == 0 {
			return out, err
		}
		after = page[len(page)-1].Event.Sequence
		for _, l := range page {
			if in.ID == "" || l.Event.ID == in.ID {
				out.Letters = append(out.Letters, showLetter(l, in.Events))
			}
		}
		if len(out.Letters) > 0 || time.Since(began) > listFor {
			out.Next = after
			return out, nil
		}
		if err := ctx.Err(); err != nil {
			return out, err
		}
	}
}

// mayHaveLetters refuses a sink of a type that gives nothing up, unless it was removed
// once and has what it had not got then.
func (k *desk) mayHaveLetters(name string) error {
	i := slices.IndexFunc(k.cfg.Sinks, func(s config.Sink) bool { return s.Name == name })
	if i < 0 || k.cfg.Sinks[i].Type == config.TypeWebhook {
		return nil
	}
	if n, err := k.db.CountDeadLetters(name); err != nil || n > 0 {
		return err
	}
	return refuse(http.StatusConflict, "sink %s is of type %s, which gives no event up: it has dead letters only where it was removed from the configuration for longer than keep_events",
		name, k.cfg.Sinks[i].Type)
}

func showLetter(l state.DeadLetter, withEvent bool) deadLetter {
	out := deadLetter{
		ID: l.Event.ID, Type: l.Event.Type, Subject: l.Event.Subject, Attempts: l.Attempts, Status: l.Status, Answer: printable(l.Error, answerMost),
		First: utc(l.First), Last: utc(l.Last), Died: utc(l.Died), Reason: l.Reason, Retrying: l.Retrying,
	}
	if withEvent {
		out.Event = string(l.Event.JSON)
	}
	return out
}

// retry queues dead letters to be sent once more.
func (k *desk) retry(ctx context.Context, in letterArgs) (letterCount, error) {
	if err := in.check(); err != nil {
		return letterCount{}, refuse(http.StatusBadRequest, "%w", err)
	}
	if _, err := k.webhook(in.Sink, "retry"); err != nil {
		return letterCount{}, err
	}
	n, err := k.db.RetryDeadLetters(ctx, in.Sink, in.ID, time.Now())
	if n > 0 {
		k.wake(in.Sink) // also where only a part of them was queued
	}
	out, err := k.counted(in, n, err, "being retried already")
	out.Waits = k.waitsFor(in.Sink)
	return out, err
}

// drop deletes dead letters.
func (k *desk) drop(ctx context.Context, in letterArgs) (letterCount, error) {
	if err := in.check(); err != nil {
		return letterCount{}, refuse(http.StatusBadRequest, "%w", err)
	}
	if _, err := k.knownSink(in.Sink); err != nil {
		return letterCount{}, err
	}
	n, err := k.db.DropDeadLetters(ctx, in.Sink, in.ID)
	if n > 0 {
		k.wake(in.Sink) // it was perhaps about to send one
	}
	return k.counted(in, n, err, "dropped already")
}

// counted is the answer of retry and drop; done is what those are that were left out.
func (k *desk) counted(in letterArgs, n int, err error, done string) (letterCount, error) {
	switch {
	case errors.Is(err, state.ErrNoDeadLetter):
		return letterCount{}, refuse(http.StatusNotFound, "sink %s has no dead letter %.300q; `syncd deadletter list --sink %[1]s` shows what it has", in.Sink, in.ID)
	case errors.Is(err, state.ErrUnknown):
		return letterCount{}, refuse(http.StatusConflict, "sink %s has no dead letters", in.Sink)
	case err != nil && n > 0:
		return letterCount{}, fmt.Errorf("%s done, then: %w", plural(n, "dead letter"), err)
	case err != nil:
		return letterCount{}, err
	case n > 0:
		return letterCount{Count: n}, nil
	}
	has, err := k.db.CountDeadLetters(in.Sink)
	switch {
	case err != nil:
		return letterCount{}, err
	case has == 0:
		return letterCount{}, refuse(http.StatusConflict, "sink %s has no dead letters", in.Sink)
	}
	return letterCount{}, refuse(http.StatusConflict, "nothing to do: what was asked for is %s", done)
}

func (in *letterArgs) check() error {
	if (in.ID != "") == in.All {
		return errors.New("either --id EVENT-ID or --all is needed")
	}
	return nil
}

func newDeadLetter(e *env) *cobra.Command {
	cmd := &cobra.Command{Use: "deadletter", Short: "What a sink's receiver refused for good", Args: noArgs,
		Long: `A dead letter is an event that a sink has given up: its receiver refused it
max_attempts_4xx times, or did not take it for give_up_after, or the sink left the configuration
and did not come back for keep_events. It keeps the event until it is retried
with success, dropped, or keep_dead_letters old.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("expected a command of deadletter: list, retry or drop")}
		}}
	cmd.AddCommand(newLetterList(e),
		newLetterWork(e, "retry", "Send dead letters once more", `Retry queues dead letters of a webhook to be sent once more, outside the order of their
subject and with the header syncd-retried: true. Each has its attempts anew; one that the receiver
takes is gone from the list. Where no daemon runs the next one sends them.`,
			(*desk).retry, func(n string, closed bool) string {
				if closed {
					return n + " queued; the next daemon sends them"
				}
				return n + " queued to be sent once more"
			}),
		newLetterWork(e, "drop", "Delete dead letters", `Drop deletes dead letters for good, those that are being retried included.`,
			(*desk).drop, func(n string, _ bool) string { return n + " dropped" }))
	return cmd
}

func newLetterWork(e *env, name, short, long string, do deskWork[letterArgs, letterCount], said func(n string, closed bool) string) *cobra.Command {
	var in letterArgs
	cmd := &cobra.Command{
		Use: name + " --sink NAME (--id EVENT-ID | --all)", Short: short, Long: long, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.Sink == "" {
				return usageError{errors.New("--sink is needed")}
			}
			if err := in.check(); err != nil {
				return usageError{err}
			}
			out, closed, err := onDesk(cmd.Context(), e, "deadletter/"+name, in, do)
			if err != nil {
				return err
			}
			return e.say("sink "+in.Sink, said(plural(out.Count, "dead letter"), closed), out.Waits)
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	e.addLetterFlags(cmd, &in.Sink, &in.ID)
	cmd.Flags().BoolVar(&in.All, "all", false, "all of the sink's")
	return cmd
}

func (e *env) addLetterFlags(cmd *cobra.Command, sink, id *string) {
	cmd.Flags().StringVar(sink, "sink", "", "`name` of the sink")
	cmd.Flags().StringVar(id, "id", "", "`id` of the event")
}

// say prints what was done about a thing, and what it waits for.
func (e *env) say(name, done, waits string) error {
	if waits != "" {
		done += "; the sink is " + waits
	}
	_, err := fmt.Fprintf(e.stdout, "%s: %s\n", name, done)
	return err
}

func newLetterList(e *env) *cobra.Command {
	var in listArgs
	var all bool
	cmd := &cobra.Command{
		Use: "list --sink NAME [--id EVENT-ID | --all]", Short: "Show dead letters", Args: noArgs,
		Long: `List shows a sink's dead letters in the order of the log, each with a piece of the
receiver's last answer. --json shows the events too.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.Sink == "" {
				return usageError{errors.New("--sink is needed")}
			}
			if in.ID != "" && all {
				return usageError{errors.New("--id and --all exclude each other")}
			}
			return e.listLetters(cmd.Context(), in)
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	e.addLetterFlags(cmd, &in.Sink, &in.ID)
	cmd.Flags().BoolVar(&all, "all", false, "all of the sink's, as without --id")
	cmd.Flags().BoolVar(&in.Events, "json", false, "print JSON, with the events")
	return cmd
}

// listLetters prints page after page: there may be more than memory has room for.
func (e *env) listLetters(ctx context.Context, in listArgs) error {
	list := letterTable{w: e.stdout, sink: in.Sink}
	show := list.page
	if in.Events {
		show = list.json
	}
	pages := func(page func(listArgs) (letterPage, error)) error {
		for {
			p, err := page(in)
			if err != nil {
				return err
			}
			in.After = p.Next
			if err := show(p); err != nil || p.Next == 0 {
				return err
			}
		}
	}
	return e.either(func(d *daemon) error {
		return pages(func(in listArgs) (p letterPage, err error) {
			return p, d.call(ctx, http.MethodPost, "/api/v1/deadletter/list", in, &p)
		})
	}, func(cfg *config.Config) error {
		return atClosed(cfg, func(k *desk) error {
			return pages(func(in listArgs) (letterPage, error) { return k.letters(ctx, in) })
		})
	})
}

// letterTable prints the list, whose last page says so.
type letterTable struct {
	w     io.Writer
	sink  string
	shown bool // something was
}

func (t *letterTable) page(p letterPage) error {
	if len(p.Letters) == 0 {
		if p.Next == 0 && !t.shown {
			_, err := fmt.Fprintf(t.w, "sink %s has no such dead letters\n", t.sink)
			return err
		}
		return nil
	}
	table := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
	if !t.shown {
		fmt.Fprintln(table, "EVENT\tTYPE\tATTEMPTS\tSTATUS\tFIRST ATTEMPT\tLAST ATTEMPT\tWHY\tANSWER")
	}
	t.shown = true
	for _, l := range p.Letters {
		status := "-"
		if l.Status != 0 {
			status = fmt.Sprint(l.Status)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", printable(l.ID, answerMost), printable(l.Type, answerMost), l.Attempts, status, clockTime(l.First), clockTime(l.Last),
			l.why(), cmp.Or(printable(l.Answer, answerShown), "-"))
	}
	return table.Flush()
}

// why is the reason in words.
func (l *deadLetter) why() string {
	if l.Retrying {
		return "being retried"
	}
	switch l.Reason {
	case state.ReasonGaveUp:
		return "given up"
	case state.ReasonSinkRemoved:
		return "sink removed"
	}
	return l.Reason
}

// json prints the list as one array.
func (t *letterTable) json(p letterPage) error {
	for _, l := range p.Letters {
		// The event goes in as it is: it may be nested as deep as a decoder just allows.
		line := l.Event
		l.Event = ""
		raw, err := encode(l)
		if err != nil {
			return err
		}
		if line != "" {
			raw = append(raw[:len(raw)-1], `,"event":`+line+"}"...)
		}
		before := "[\n"
		if t.shown {
			before = ",\n"
		}
		t.shown = true
		if _, err := io.WriteString(t.w, before+string(raw)); err != nil {
			return err
		}
	}
	if p.Next != 0 {
		return nil
	}
	end := "\n]\n"
	if !t.shown {
		end = "[]\n"
	}
	_, err := io.WriteString(t.w, end)
	return err
}
