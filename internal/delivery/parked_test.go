package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/state"
)

// G5: a receiver that takes its time for one subject, and acknowledges it, keeps no
// other waiting, and that subject stays in order.
func TestParallelSlowSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		v.answer = func(ctx context.Context, e *event.Logged) error {
			if e.PartitionKey == "shop-a/slow" {
				return takes(14*time.Second, nil)(ctx, e)
			}
			return nil
		}
		var subjects []string
		for i := range 6000 {
			subjects = append(subjects, fmt.Sprint("s", i))
			if i%10 == 0 {
				subjects[i] = "slow"
			}
		}
		r.log(subjects...)
		stop := r.start(to("crm", v))
		time.Sleep(5 * time.Second)
		settle()
		if m := v.missing(); len(m) != 600 {
			t.Errorf("%d events wait for a slow subject", len(m)-600)
		}
		for i := range 3000 {
			subjects[i] = fmt.Sprint("t", i)
			if i%10 == 0 {
				subjects[i] = "slow"
			}
		}
		time.Sleep(time.Minute)
		r.log(subjects[:3000]...)
		time.Sleep(2 * time.Second) // its request is one of the queue now
		settle()
		if m := v.missing(); len(m) > 900 {
			t.Errorf("%d events wait for a slow subject", len(m)-900)
		}
		time.Sleep(time.Hour)
		settle()
		if tries := v.triesOf(1); len(tries) != 1 || v.acked[1] != 1 {
			t.Errorf("what was on its way was tried at %v", tries)
		}
		if n := 900 - len(v.missing()); n < 250 {
			t.Errorf("%d of the slow subject in an hour", n)
		}
		stop()
		if err := r.db.Check(); err != nil {
			t.Error(err)
		}
	})
}

// The same of batches: the others go on in theirs, as full as before, those of the
// batch that is slow stay what they were, and nothing of their subjects overtakes
// them. A batch that is not full and may wait for more does not stand in the way.
func TestParallelSlowBatch(t *testing.T) {
	for _, wait := range []time.Duration{0, 24 * time.Hour} {
		for _, slow := range []int{1, 10} { // of the first batch
			t.Run(fmt.Sprint(wait, " ", slow), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { slowBatch(t, wait, slow) })
			})
		}
	}
}

func slowBatch(t *testing.T, wait time.Duration, slow int) {
	r := newRig(t)
	v := newReceiver(r, 4)
	v.batch = 10
	v.answer = func(ctx context.Context, e *event.Logged) error {
		if e.PartitionKey == "shop-a/slow" {
			return takes(30*time.Second, nil)(ctx, e)
		}
		return nil
	}
	var subjects []string
	for i := range 4005 { // many windows
		subjects = append(subjects, fmt.Sprint("s", i))
	}
	beside := make(map[string]bool) // subjects of the slow batch
	for i := range 10 {
		if i < slow {
			subjects[i] = "slow"
		}
		beside["shop-a/"+subjects[i]] = true
	}
	for i := 10; i < len(subjects); i += 100 { // later ones of them
		subjects[i] = subjects[i/100%10]
	}
	r.log(subjects...)
	others := func(seqs []uint64) (n int) {
		for _, seq := range seqs {
			if !beside[r.key(seq)] {
				n++
			}
		}
		return n
	}
	stop := r.start(batching(to("crm", v), 10, wait))
	time.Sleep(5 * time.Second)
	settle()
	if n := others(v.missing()); n > 10 || wait == 0 && n > 0 { // the last batch may not be full
		t.Errorf("%d events of others wait for a batch that is slow", n)
	}
	if n := v.total(); n > 420 {
		t.Errorf("%d requests for 4000 events", n)
	}
	if h, ok, err := r.db.Head("crm", state.Live, "shop-a/slow"); err != nil || !ok || h.Batch != 1 || h.Attempts != 1 {
		t.Errorf("the batch on its way is not a head of the queue, its attempt counted: %+v %t %v", h, ok, err)
	}
	time.Sleep(24 * time.Hour)
	settle()
	if m := v.missing(); len(m) > 0 || v.acked[1] != 1 || len(v.triesOf(1)) != 1 {
		t.Errorf("missing %d, the first was tried at %v", m, v.triesOf(1))
	}
	stop()
	if err := r.db.Check(); err != nil {
		t.Error(err)
	}
	if s, err := r.db.OpenSink("crm", "webhook", true, time.Now()); err != nil || len(s.Batches) > 0 {
		t.Errorf("%+v %v", s, err)
	}
}

// A subject whose requests hang to the end costs the others of its batch two
// attempts, and nobody else anything, for as long as it does.
func TestParallelHangingBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 4)
		v.batch = 10
		v.answer = func(ctx context.Context, e *event.Logged) error {
			if e.PartitionKey == "shop-a/hangs" {
				return takes(30*time.Second, errors.New("timeout"))(ctx, e)
			}
			return nil
		}
		r.window = 80
		stop := r.start(batching(to("crm", v), 10, 0))
		seq := 0
		for i := range 60 {
			var subjects []string
			for j := range 40 {
				subjects = append(subjects, fmt.Sprint("s", i, "-", j))
			}
			subjects[0] = "hangs"
			r.log(subjects...)
			seq += len(subjects)
			time.Sleep(2 * time.Second)
			settle()
			late := 0
			for _, m := range v.missing() {
				if r.key(m) != "shop-a/hangs" && m <= uint64(seq-40) {
					late++
				}
			}
			if late > 9 { // of the first batch
				t.Fatalf("after page %d %d events of others wait", i, late)
			}
		}
		stop()
		if m := v.missing(); len(m) != 60 {
			t.Errorf("missing %d, want the 60 of the subject that hangs", len(m))
		}
	})
}

// What became of a request when its subjects had been moved to the queue is that of
// a head, and a crash around it loses nothing and repeats what is the same.
func TestParallelParkedFails(t *testing.T) {
	answers := []error{nil, errors.New("500"), &sink.Error{Kind: sink.Permanent, Status: 400}, &sink.Error{Kind: sink.Gone, Status: 410},
		&sink.Error{Status: 503, RetryAfter: 30 * time.Second}}
	for _, batch := range []int{1, 3} {
		for _, kind := range []string{"failed", "failed but took effect", "killed before", "killed after"} {
			for at := range 3 {
				for _, how := range answers {
					t.Run(fmt.Sprint("batches of ", batch, ", ", kind, " at commit ", at, ", ", how), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { parkedAt(t, batch, kind, at, how) })
					})
				}
			}
		}
	}
}

func parkedAt(t *testing.T, batch int, kind string, at int, how error) {
	r := newRig(t)
	r.window = 30
	v := newReceiver(r, 3)
	v.batch = batch
	v.answer = func(ctx context.Context, e *event.Logged) error {
		switch {
		case e.Sequence == 1:
			if len(v.triesOf(1)) > 1 && how != nil && sink.AsError(how).Kind == sink.Gone {
				return nil
			}
			return takes(1010*time.Millisecond, how)(ctx, e) // soon after it is moved
		case e.PartitionKey == "shop-a/slow":
			return takes(5*time.Second, nil)(ctx, e)
		}
		return nil
	}
	var subjects []string
	for i := range 60 {
		subjects = append(subjects, fmt.Sprint("s", i))
		if i == 0 || i%20 == 1 {
			subjects[i] = "slow"
		}
	}
	r.log(subjects...)
	s := with(retrying(to("crm", v), time.Second, 2*time.Second), func(s *delivery.Sink) { s.MaxRefusals, s.BatchEvents = 2, batch })
	d, stop := r.startAs(s)
	time.Sleep(900 * time.Millisecond)
	r.mu.Lock()
	r.commits, r.check, r.fault = 0, true, r.faultAt(kind, at)
	r.mu.Unlock()
	for i := range 30 {
		time.Sleep(2 * time.Second)
		if r.isKilled() {
			stop()
			r.restart()
			v.died()
			d, stop = r.startAs(s)
		}
		if i < 8 {
			r.tryLog(fmt.Sprint("e", i))
		}
		if i == 10 || i == 20 {
			_ = d.Resume("crm") // after a 410; the commit of the first may be the one that breaks
		}
	}
	stop()
	if err := r.db.Check(); err != nil {
		t.Error(err)
	}
	dead, stuck := 0, false
	if how != nil {
		e := sink.AsError(how)
		stuck = e.Kind == sink.Temporary
		if e.Kind == sink.Permanent {
			dead = 1
		}
	}
	m := v.missing()
	for _, seq := range m {
		if !stuck || r.key(seq) != "shop-a/slow" {
			t.Errorf("event %d of %s is missing", seq, r.key(seq))
		}
	}
	if (v.acked[1] == 0) != (stuck || dead > 0) || len(r.dead()) != dead {
		t.Errorf("missing %d, dead %d", m, r.dead())
	}
}
