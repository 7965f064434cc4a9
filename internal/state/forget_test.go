package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
	"syncd/internal/state"
)

// What is forgotten is gone, all of it and nothing else: the name is a new thing.
func TestForgetAccount(t *testing.T) {
	f := open(t)
	fill(t, f.DB)
	other := pageOf(f.DB, question("q1", 1, "other"))
	other.Stream.Account = "shop-b"
	commit(t, f.DB, other)
	_, err := f.PinAccount("shop-b", "wildberries", "seller-2", day)
	before := len(events(t, f.DB))
	if err := errors.Join(err, f.ForgetAccount(context.Background(), "shop-a")); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	checkState(t, f.DB)
	if left, err := f.Forgotten(); left || err != nil {
		t.Fatal("something is still there", err)
	}
	f.edit(func(tx *bolt.Tx) error {
		return tx.ForEach(func(root []byte, b *bolt.Bucket) error {
			if b.Bucket([]byte("shop-a")) != nil || string(root) == "accounts" && b.Get([]byte("shop-a")) != nil {
				t.Errorf("it is still in %s", root)
			}
			return nil
		})
	})
	if got := accountsOf(t, f); !slices.Equal(got, []string{"shop-b"}) {
		t.Fatalf("records of %q", got)
	}
	if sellers, err := f.Sellers(); err != nil || len(sellers) != 1 || sellers["shop-b"] != "seller-2" {
		t.Fatal(sellers, err)
	}
	if _, err := f.PinAccount("shop-a", "wildberries", "seller-3", day.Add(time.Hour)); err != nil {
		t.Fatal("its seller is still pinned:", err)
	}
	s, err := f.OpenStream(questions, nil, day.Add(time.Hour))
	if err != nil || s.Walked || s.Backfill != nil || len(s.Walks) != 0 || !s.Start.Equal(day.Add(time.Hour)) {
		t.Fatalf("%+v %v", s, err)
	}
	if raw, _, err := f.Ledger().Load("wildberries/seller-1/chat"); raw == nil || err != nil {
		t.Fatal("the seller's budget is gone", err)
	}
	if got := len(events(t, f.DB)); got != before {
		t.Fatalf("%d events, and %d before", got, before)
	}
	if out := commit(t, f.DB, pageOf(f.DB, question("q2", 2, "a & b"))); out.Actions[0] != state.ActionCreated {
		t.Fatalf("a known item is %s", out.Actions)
	}
	if err := f.ForgetAccount(context.Background(), "shop-c"); !errors.Is(err, state.ErrUnknown) {
		t.Fatal(err)
	}
}

func accountsOf(t *testing.T, f *file) (out []string) {
	t.Helper()
	err := f.ExportRecords(context.Background(), "", "", func(r state.Record) error {
		out = append(out, r.Account)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Compact(out)
}

func TestForgetSink(t *testing.T) {
	f, logged := deadOf(t, "a", "b")
	retryOne(t, f, logged[0].ID, 1)
	_, err := f.OpenSink("other", "file", true, day)
	n := f.n
	if err := errors.Join(err, f.ForgetSink(context.Background(), "crm")); err != nil {
		t.Fatal(err)
	}
	checkState(t, f.DB)
	if f.n-n != 2 { // out of reach, and deleted
		t.Errorf("%d commits", f.n-n)
	}
	if names, err := f.Sinks(); err != nil || !slices.Equal(names, []string{"other"}) {
		t.Fatal(names, err)
	}
	if dead, err := f.CountDeadLetters("crm"); dead != 0 || err != nil {
		t.Fatal(dead, err)
	}
	if s, err := f.OpenSink("crm", "file", false, day); err != nil || s.Position != 2 {
		t.Fatalf("%+v %v", s, err)
	}
}

// Export shows all records, in pieces, while others write.
func TestExportRecords(t *testing.T) {
	f := open(t)
	f.NoSync()
	var items []state.Item
	const n = 600
	for i := range n {
		items = append(items, question(fmt.Sprintf("q%03d", i), i, "a"))
	}
	items[7].Changed = day.Add(time.Hour)
	items[8].Silent = true
	p := pageOf(f.DB, items...)
	commit(t, f.DB, p)
	commit(t, f.DB, pageOf(f.DB, question("q009", 9, "b")))
	answers := pageOf(f.DB, question("x", 1, "a"))
	answers.Stream.Stream = "answers"
	commit(t, f.DB, answers)
	var got []state.Record
	export := func(account, stream string) []state.Record {
		got = nil
		err := f.ExportRecords(context.Background(), account, stream, func(r state.Record) error {
			if got = append(got, r); len(got) == 10 { // a write needs no reader to be done
				if _, err := f.CommitPage(pageOf(f.DB, question("q100", 100, "b"))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for args, want := range map[[2]string]int{{"", ""}: n + 1, {"shop-a", ""}: n + 1, {"", "answers"}: 1, {"shop-a", "questions"}: n, {"shop-b", ""}: 0} {
		if got := export(args[0], args[1]); len(got) != want {
			t.Errorf("%q: %d records, want %d", args, len(got), want)
		}
	}
	all := export("shop-a", "questions")
	for i, r := range all {
		want := state.Record{Account: "shop-a", Stream: "questions", ID: items[i].ID, Kind: "question", Subject: items[i].Subject, Version: 1,
			Fingerprint: items[i].Fingerprint.String(), Created: items[i].Created, Recorded: p.Now, Emitted: true, Item: items[i].Body}
		switch i {
		case 7:
			want.Changed = day.Add(time.Hour)
		case 8:
			want.Emitted = false
		case 9, 100:
			b := question(items[i].ID, i, "b")
			want.Version, want.Fingerprint, want.Item = 2, b.Fingerprint.String(), b.Body
		}
		if fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", want) {
			t.Errorf("%+v\nwant %+v", r, want)
		}
	}
	broken := errors.New("the pipe is closed")
	calls := 0
	if err := f.ExportRecords(context.Background(), "", "", func(state.Record) error { calls++; return broken }); !errors.Is(err, broken) || calls != 1 {
		t.Error(calls, err)
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.ExportRecords(stopped, "", "", func(state.Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestExportEvents(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, slices.Repeat([]string{"a", "b"}, 300)...)
	want := events(t, f.DB)
	i := 0
	err := f.ExportEvents(context.Background(), func(h event.Header) bool { return h.Subject == "b" }, func(e event.Logged) error {
		i += 2
		if string(e.JSON) != string(want[i-1].JSON) || e.Header != want[i-1].Header || !json.Valid(e.JSON) {
			return fmt.Errorf("%s\nwant %s", e.JSON, want[i-1].JSON)
		}
		logOf(t, f.DB, "b") // what comes meanwhile is not waited for
		return nil
	})
	if err != nil || i != 600 {
		t.Fatal(i, err)
	}
	broken := errors.New("the pipe is closed")
	if err := f.ExportEvents(context.Background(), nil, func(event.Logged) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.ExportEvents(stopped, nil, func(event.Logged) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// An export that takes so long that retention overtakes it says that it is not whole.
func TestExportOvertakenByRetention(t *testing.T) {
	for _, left := range []int{0, 100} { // what came later and is kept
		f := open(t)
		logOf(t, f.DB, slices.Repeat([]string{"a", "b"}, 300)...)
		n := 0
		err := f.ExportEvents(t.Context(), nil, func(event.Logged) error {
			if n++; n == 1 {
				if gone, err := f.Retain(t.Context(), time.Now().AddDate(10, 0, 0)); err != nil || gone != 600 {
					t.Fatal(gone, err)
				}
				logOf(t, f.DB, slices.Repeat([]string{"c"}, left)...)
			}
			return nil
		})
		if !errors.Is(err, state.ErrDeletedMeanwhile) || n >= 600 {
			t.Errorf("%d of 600 events were read: %v", n, err)
		}
		// What is gone before the first one is no piece that is missing.
		if err := f.ExportEvents(t.Context(), nil, func(event.Logged) error { return nil }); err != nil {
			t.Error(err)
		}
	}
}
