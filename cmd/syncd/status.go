package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

// statusAnswer is /api/v1/status. Times are RFC 3339 in UTC, durations seconds; a
// member that is not there is unknown, or never was.
type statusAnswer struct {
	Version  string          `json:"version"`
	Started  time.Time       `json:"started"`
	Ready    bool            `json:"ready"`
	Notes    []string        `json:"notes,omitempty"` // what an operator should know
	Accounts []accountStatus `json:"accounts"`
	Streams  []streamStatus  `json:"streams"`
	Budgets  []budgetStatus  `json:"budgets"`
	Sinks    []sinkStatus    `json:"sinks"`
}

type accountStatus struct {
	Account     string        `json:"account"`
	Marketplace string        `json:"marketplace"`
	Seller      string        `json:"seller,omitempty"` // since the first use
	Tokens      []tokenStatus `json:"tokens"`
}

type tokenStatus struct {
	Group   string    `json:"group"`
	Type    string    `json:"type"`
	Source  string    `json:"source"`
	Opens   bool      `json:"opens_group"`
	Expires time.Time `json:"expires,omitzero"`
}

type streamStatus struct {
	Account     string         `json:"account"`
	Stream      string         `json:"stream"`
	Marketplace string         `json:"marketplace"`
	Schedule    string         `json:"schedule"`
	Stopped     string         `json:"stopped,omitempty"`
	FirstWalk   string         `json:"first_walk"` // going on, complete
	Blocked     time.Time      `json:"blocked_until,omitzero"`
	Behind      seconds        `json:"behind_seconds,omitempty"`
	BehindSince time.Time      `json:"behind_since,omitzero"`
	Plan        string         `json:"plan,omitempty"` // how often the budget allows to read it
	Walks       []streamedWalk `json:"walks"`
}

type streamedWalk struct {
	Walk    sources.Walk   `json:"walk"`
	Every   seconds        `json:"every_seconds,omitempty"`
	Last    time.Time      `json:"last_complete,omitzero"`
	Next    time.Time      `json:"next_due,omitzero"`
	Period  seconds        `json:"real_period_seconds,omitempty"`
	Waiting time.Time      `json:"waiting_for_budget_until,omitzero"`
	Since   time.Time      `json:"backfill_since,omitzero"`
	Running *runningWalk   `json:"running,omitempty"`
	Failure *failingStream `json:"failure,omitempty"`
	Part    *failingStream `json:"failing_part,omitempty"` // that the last run did without
	Visits  *visits        `json:"visits,omitempty"`
}

// visits are those of the walk "follow". They may be some minutes old.
type visits struct {
	Planned int `json:"planned"`
	Overdue int `json:"overdue"`
	PutOff  int `json:"put_off"` // after a failure
}

type runningWalk struct {
	Since    time.Time `json:"since"`
	Requests int       `json:"requests"`
	Items    int       `json:"items"`
	Progress float64   `json:"progress,omitempty"`
}

type failingStream struct {
	Kind    sources.Kind `json:"kind,omitempty"`
	Text    string       `json:"error"`
	Request string       `json:"request,omitempty"`
	Since   time.Time    `json:"since"`
	Times   int          `json:"times"`
}

type budgetStatus struct {
	Account  string    `json:"account"`
	Budget   string    `json:"budget"`
	Seller   string    `json:"seller"`
	Interval seconds   `json:"interval_seconds,omitempty"` // of a token bucket, as documented
	Burst    int       `json:"burst,omitempty"`
	Window   *window   `json:"window,omitempty"`
	Pause    seconds   `json:"pause_seconds"` // with the share that may be used and the slack
	Tokens   float64   `json:"tokens"`
	Next     time.Time `json:"next_request,omitzero"`
	Cooling  time.Time `json:"cooling_until,omitzero"`
	Waiting  int       `json:"waiting_requests"`
}

// window is a budget of calls in a time.
type window struct {
	Calls       int       `json:"calls"` // as last heard
	Period      seconds   `json:"period_seconds"`
	Used        int       `json:"used"`
	OthersLeave int       `json:"others_leave,omitempty"` // until then
	Until       time.Time `json:"others_until,omitzero"`  // absent: others do not matter
}

// seconds is a duration as JSON has it.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

func (s *seconds) UnmarshalJSON(raw []byte) error {
	var f float64
	err := json.Unmarshal(raw, &f)
	*s = seconds(f * float64(time.Second))
	return err
}

func utc(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// status is what the running daemon is doing.
func (a *app) status() any {
	notes, err := a.ready()
	out := statusAnswer{Version: version().version, Started: utc(a.started), Ready: err == nil, Notes: notes}
	if err != nil {
		out.Notes = append(out.Notes, err.Error())
	}
	pinned, err := a.db.Sellers()
	if err != nil {
		out.Notes = append(out.Notes, err.Error())
	}
	for _, account := range a.config().Accounts {
		s := accountStatus{Account: account.Name, Marketplace: account.Marketplace, Seller: pinned[account.Name]}
		for _, group := range groupsOf(account) {
			secret := account.Tokens[group]
			facts, err := marketplaceOf(account).describe(account, group)
			if err != nil {
				continue // was checked with the configuration
			}
			s.Tokens = append(s.Tokens, tokenStatus{Group: group, Type: facts.Type, Source: secret.Source(), Opens: facts.Opens, Expires: facts.Expires})
		}
		out.Accounts = append(out.Accounts, s)
	}
	free := make(map[[2]string]time.Time) // when an account's budget allows the next request
	for _, b := range a.budgets.Snapshot() {
		next := b.Next
		if !next.After(time.Now()) {
			next = time.Time{}
		}
		free[[2]string{b.Account, b.Budget}] = next
		shown := budgetStatus{
			Account: b.Account, Budget: b.Budget, Seller: b.Key.Seller, Interval: seconds(b.Limit.Interval), Burst: b.Limit.Burst,
			Pause: seconds(b.Pause), Tokens: b.Tokens, Next: utc(next), Cooling: utc(b.CoolingUntil), Waiting: b.Waiting,
		}
		if b.Window.Calls > 0 {
			shown.Window = &window{Calls: b.Window.Calls, Period: seconds(b.Window.Period), Used: b.Used, OthersLeave: b.CapLeft, Until: utc(b.CapUntil)}
		}
		out.Budgets = append(out.Budgets, shown)
	}
	for _, s := range a.poller.Status() {
		out.Streams = append(out.Streams, showStream(s, free[[2]string{s.Stream.Account, s.Group}]))
	}
	if out.Sinks, err = a.desk().sinks(); err != nil {
		out.Notes = append(out.Notes, err.Error())
	}
	return out
}

// showStream renders a stream; free is when its budget allows the next request, if
// that is later than now.
func showStream(s poller.StreamStatus, free time.Time) streamStatus {
	out := streamStatus{
		Account: s.Stream.Account, Stream: s.Stream.Stream, Marketplace: s.Marketplace, Schedule: s.Schedule, FirstWalk: "going on",
		Blocked: utc(s.Blocked), Behind: seconds(s.Behind), BehindSince: utc(s.BehindSince), Plan: s.Plan,
	}
	if s.Walked {
		out.FirstWalk = "complete"
	}
	if s.Stopped != nil {
		out.Stopped = s.Stopped.Error()
	}
	for _, w := range s.Walks {
		shown := streamedWalk{Walk: w.Walk, Every: seconds(w.Every), Last: utc(w.Last), Next: utc(w.Next), Period: seconds(w.Period), Waiting: utc(w.Waiting)}
		switch {
		case s.Stopped != nil:
			shown.Next = time.Time{}
		case s.Blocked.After(w.Next) && !w.Next.IsZero():
			shown.Next = utc(s.Blocked)
		}
		// News that is due and has no other reason to wait waits for the budget.
		if w.Walk == sources.News && w.Next.IsZero() && shown.Waiting.IsZero() && s.Stopped == nil && s.Blocked.IsZero() && time.Until(free) > time.Second {
			shown.Waiting = utc(free)
		}
		if w.Request != nil {
			shown.Since = utc(w.Request.Since)
		}
		if r := w.Running; r != nil {
			shown.Running = &runningWalk{Since: utc(r.Since), Requests: r.Requests, Items: r.Items, Progress: r.Progress}
		}
		shown.Failure, shown.Part = showFailure(w.Failure), showFailure(w.Part)
		if w.Walk == sources.Follow {
			shown.Visits = &visits{Planned: w.Planned, Overdue: w.Overdue, PutOff: w.PutOff}
		}
		out.Walks = append(out.Walks, shown)
	}
	return out
}

func showFailure(f *poller.FailureStatus) *failingStream {
	if f == nil {
		return nil
	}
	return &failingStream{Kind: f.Kind, Text: f.Text, Request: f.Request, Since: utc(f.Since), Times: f.Times}
}

// going is what a progress bar shows.
func (a *app) going() []work {
	return a.walks(func(poller.StreamStatus, poller.WalkStatus) bool { return true })
}

// history is what of it a daemon's shows: first walks and backfills, which end.
func (a *app) history() []work {
	return a.walks(func(s poller.StreamStatus, w poller.WalkStatus) bool {
		return w.Walk == sources.Backfill || w.Walk == sources.News && !s.Walked
	})
}

func (a *app) walks(want func(poller.StreamStatus, poller.WalkStatus) bool) []work {
	var out []work
	for _, s := range a.poller.Status() {
		for _, w := range s.Walks {
			if r := w.Running; r != nil && want(s, w) {
				out = append(out, work{name: s.Stream.String(), items: r.Items, requests: r.Requests, share: r.Progress})
			}
		}
	}
	return out
}

func newStatus(e *env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "What the running daemon is doing", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.status(cmd.Context(), asJSON) },
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (e *env) status(ctx context.Context, asJSON bool) error {
	cfg, cfgErr := e.quietConfig()
	d, err := e.daemon(cfg)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	switch err := d.call(ctx, http.MethodGet, "/api/v1/status", nil, &raw); {
	case errors.Is(err, errNoDaemon) && cfgErr != nil && !e.serverGiven():
		fmt.Fprintln(e.stderr, "syncd:", err)
		return cfgErr // which may be why
	case err != nil:
		return err
	}
	var s statusAnswer
	if err := json.Unmarshal(raw, &s); err != nil || s.Version == "" {
		return errors.Join(fmt.Errorf("%s does not answer as this version of syncd would", d.base), err)
	}
	if asJSON {
		_, err := fmt.Fprintf(e.stdout, "%s\n", raw)
		return err
	}
	return s.print(e.stdout, time.Now())
}

func (s *statusAnswer) print(w io.Writer, now time.Time) error {
	fmt.Fprintf(w, "syncd %s, running for %s\n", s.Version, about(now.Sub(s.Started)))
	for _, n := range s.Notes {
		fmt.Fprintln(w, n)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nSTREAM\tREADS\tLAST COMPLETE\tNEXT\tREAL PERIOD\tSTATE")
	for _, st := range s.Streams {
		for _, k := range st.Walks {
			if k.Walk == sources.Backfill && k.Since.IsZero() && k.Running == nil {
				continue
			}
			fmt.Fprintf(t, "%s/%s\t%s\t%s\t%s\t%s\t%s\n", st.Account, st.Stream, k.Walk, ago(now, k.Last), until(now, k.Next), period(k), st.state(k, now))
		}
	}
	fmt.Fprintln(t, "\nBUDGET\tONE REQUEST EVERY\tAVAILABLE NOW\tUSED\tNEXT\tWAITING")
	for _, b := range s.Budgets {
		next := until(now, b.Next)
		if !b.Cooling.IsZero() {
			next = "cooling down: " + until(now, b.Cooling)
		}
		fmt.Fprintf(t, "%s/%s\t%s\t%.0f\t%s\t%s\t%d\n", b.Account, b.Budget, time.Duration(b.Pause).Round(time.Millisecond), math.Floor(b.Tokens), b.Window.used(now), next, b.Waiting)
	}
	if len(s.Sinks) > 0 {
		fmt.Fprintln(t, "\nSINK\tTYPE\tWAITING\tOLDEST\tIN FLIGHT\tDEAD LETTERS\tLAST TAKEN\tSTATE")
		for _, k := range s.Sinks {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\t%d\t%s\t%s\n", k.Sink, k.Type, k.Backlog, ago(now, k.Oldest), k.InFlight, k.DeadLetters, ago(now, k.LastAck), k.state(now))
		}
	}
	return t.Flush()
}

// used is how much of a window's calls are spent; nil: of a bucket, which tells by what
// is available.
func (w *window) used(now time.Time) string {
	if w == nil {
		return "-"
	}
	text := fmt.Sprintf("%d of %d in %s", w.Used, w.Calls, about(time.Duration(w.Period)))
	if !w.Until.IsZero() {
		text += fmt.Sprintf(", others leave %d, again %s", w.OthersLeave, until(now, w.Until))
	}
	return text
}

// state is what a walk is doing, in a few words.
func (st *streamStatus) state(k streamedWalk, now time.Time) string {
	var out []string
	if k.Running != nil {
		text := fmt.Sprintf("reading: %d items in %d requests", k.Running.Items, k.Running.Requests)
		if p := k.Running.Progress; p > 0 {
			text += fmt.Sprintf(", %.0f %%", p*100)
		}
		out = append(out, text)
	}
	if !k.Since.IsZero() {
		out = append(out, "since "+k.Since.Format(time.DateOnly))
	}
	if (k.Walk == sources.Sweep || k.Walk == sources.Full) && st.FirstWalk != "complete" {
		out = append(out, "begins after the first reading")
	}
	if st.Stopped != "" {
		out = append(out, st.Stopped)
	}
	if !st.Blocked.IsZero() {
		out = append(out, "refused, again "+until(now, st.Blocked))
	}
	if k.Walk == sources.News && st.Behind > 0 {
		out = append(out, "behind by "+about(time.Duration(st.Behind)))
	}
	if !k.Waiting.IsZero() {
		out = append(out, "waiting for the budget, "+until(now, k.Waiting)+" at the earliest")
	}
	if v := k.Visits; v != nil {
		text := fmt.Sprintf("%d planned, %d overdue", v.Planned, v.Overdue)
		if v.PutOff > 0 {
			text += fmt.Sprintf(", %d put off after failures", v.PutOff)
		}
		out = append(out, text)
	}
	if k.Walk == sources.News && st.Plan != "" {
		out = append(out, st.Plan)
	}
	if p := k.Part; p != nil {
		out = append(out, fmt.Sprintf("without a part for %s: %s", about(now.Sub(p.Since)), p.Text))
	}
	if f := k.Failure; f != nil {
		out = append(out, fmt.Sprintf("failing for %s: %s", about(now.Sub(f.Since)), f.Text))
	}
	return cmp.Or(strings.Join(out, "; "), "ok")
}

// period shows how far apart the runs really are.
func period(k streamedWalk) string {
	if k.Period == 0 || k.Walk == sources.Follow { // whose runs are single visits
		return "-"
	}
	return about(time.Duration(k.Period))
}

// about rounds a duration to what a person reads.
func about(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return about(now.Sub(t)) + " ago"
}

func until(now, t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case !t.After(now):
		return "now"
	}
	return "in " + about(t.Sub(now))
}
