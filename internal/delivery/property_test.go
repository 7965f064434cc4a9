package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
)

// For every commit, and each way in which it can fail or the process die around
// it: nothing lost, order kept, the state sound.
func TestParallelCrashMatrix(t *testing.T) {
	for _, batch := range []int{1, 3} {
		for _, kind := range []string{"failed", "failed but took effect", "killed before", "killed after"} {
			for at := range 16 {
				t.Run(fmt.Sprintf("batches of %d, %s at commit %d", batch, kind, at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { crashAt(t, batch, kind, at) })
				})
			}
		}
	}
}

func crashAt(t *testing.T, batch int, kind string, at int) {
	r := newRig(t)
	v := newReceiver(r, 3)
	v.batch, r.window = batch, 4 // which is soon full behind a request that takes its time
	tries := make(map[uint64]int)
	v.answer = func(_ context.Context, e *event.Logged) error {
		v.mu.Lock()
		defer v.mu.Unlock()
		tries[e.Sequence]++
		switch {
		case e.PartitionKey == "shop-a/b" && tries[e.Sequence] < 3:
			return errors.New("500")
		case e.PartitionKey == "shop-a/p":
			return &sink.Error{Kind: sink.Permanent, Status: 400}
		}
		return nil
	}
	v.whole = func(ctx context.Context, events []event.Logged) error {
		if events[0].PartitionKey == "shop-a/slow" {
			return takes(2*time.Second, nil)(ctx, nil)
		}
		return nil
	}
	r.log("slow", "a", "slow", "b", "p", "b", "c", "b", "a", "p")
	r.position("crm")
	r.mu.Lock()
	r.commits, r.check, r.fault = 0, true, r.faultAt(kind, at)
	r.mu.Unlock()
	var stop func()
	alive := func() {
		settle()
		if stop != nil && !r.isKilled() {
			return
		}
		if stop != nil {
			stop()
			r.restart()
		}
		v.died()
		stop = r.start(with(to("crm", v), func(s *delivery.Sink) { s.BatchEvents, s.MaxRefusals = batch, 2 }))
	}
	for i := range 20 {
		alive()
		if i < 3 {
			for !r.tryLog("b", fmt.Sprint("d", i)) {
				alive()
			}
		}
		time.Sleep(7 * time.Second)
	}
	for i := range 20 { // what a refusal needs to count
		for !r.tryLog(fmt.Sprint("e", i)) {
			alive()
		}
		time.Sleep(10 * time.Minute)
		alive()
	}
	stop()
	if m := v.missing(); len(m) > 0 || r.backlog("crm") != 0 || len(r.dead()) != 2 {
		t.Errorf("missing %d, %d left, dead %d\n%s", m, r.backlog("crm"), r.dead(), r.out.String())
	}
	if s, err := r.db.OpenSink("crm", "webhook", true, time.Now()); err != nil || len(s.Batches) > 0 || len(s.Ahead) > 0 {
		t.Errorf("%+v %v", s, err)
	}
}

// Random events, settings, failures, latencies, commands, broken commits and kills
// at any point: nothing is lost, nothing overtakes, no subject is in two requests,
// a batch stays what it is.
func TestParallelProperty(t *testing.T) {
	n := 30
	if s := os.Getenv("SYNCD_SEEDS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	for range n {
		seed := rand.Uint64()
		if s := os.Getenv("SYNCD_SEED"); s != "" {
			seed, _ = strconv.ParseUint(s, 10, 64)
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { // the seed is the name
			synctest.Test(t, func(t *testing.T) { anything(t, seed) })
		})
	}
}

func anything(t *testing.T, seed uint64) {
	r := newRig(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex // of rnd
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(n)
	}
	r.window = []int{0, 4, 15}[roll(3)]
	v := newReceiver(r, []int{1, 2, 8}[roll(3)])
	v.batch = []int{1, 3, 10}[roll(3)]
	s := with(retrying(to("crm", v), time.Second, 20*time.Second), func(s *delivery.Sink) {
		s.BatchEvents, s.BatchWait = v.batch, time.Duration(roll(2)*roll(2000))*time.Millisecond
		s.MaxRefusals, s.Rate = []int{0, 1, 3}[roll(3)], []float64{0, 20}[roll(2)]
		s.GiveUpAfter = []time.Duration{0, 2 * time.Minute}[roll(2)]
	})
	var bad atomic.Int64 // how many in 100 fail
	bad.Store(int64(roll(60)))
	sick := map[string]int{fmt.Sprint("shop-a/s", roll(8)): roll(3), fmt.Sprint("shop-a/s", roll(8)): roll(3)}
	v.answer = func(ctx context.Context, e *event.Logged) error {
		worst := bad.Load()
		if how, ok := sick[e.PartitionKey]; ok && worst > 0 {
			switch how {
			case 0:
				return &sink.Error{Kind: sink.Permanent, Status: 422}
			case 1:
				return takes(15*time.Second, errors.New("timeout"))(ctx, e)
			}
			return &sink.Error{Status: 500}
		}
		return nil
	}
	v.whole = func(ctx context.Context, events []event.Logged) error {
		d, dice, worst := time.Duration(roll(3000))*time.Millisecond, int64(roll(1000)), bad.Load()
		if err := takes(d, nil)(ctx, nil); err != nil {
			return err
		}
		switch {
		case worst > 0 && dice == 0:
			return &sink.Error{Kind: sink.Gone, Status: 410}
		case dice < worst/2:
			return &sink.Error{Status: 503, RetryAfter: d * 10}
		case dice < worst:
			return &sink.Error{Kind: sink.Permanent, Status: 401}
		case dice < worst*10:
			return errors.New("500")
		}
		return nil
	}
	r.position("crm")
	fault := func(_ int, commit func() error) error {
		switch roll(200) {
		case 0:
			return errBroken
		case 1:
			if err := commit(); err != nil {
				return err
			}
			return errBroken
		case 2:
			r.killLocked()
			return errKilled
		}
		return commit()
	}
	r.mu.Lock()
	r.fault = fault
	r.mu.Unlock()
	var d *delivery.Delivery
	var stop func()
	begin := func() {
		r.mu.Lock()
		r.fault = nil // New has nobody who tries again
		r.mu.Unlock()
		d, stop = r.startAs(s)
		r.mu.Lock()
		r.fault = fault
		r.mu.Unlock()
	}
	alive := func() {
		if r.isKilled() {
			stop()
			r.restart()
			v.died()
			begin()
		}
	}
	begin()
	for i := 0; i < 80 || r.isKilled(); i++ {
		if roll(15) == 0 {
			r.mu.Lock()
			if !r.killed {
				r.killLocked()
			}
			r.mu.Unlock()
		}
		alive()
		var subjects []string
		for range roll(8) {
			subjects = append(subjects, fmt.Sprint("s", roll(8)))
		}
		if len(subjects) > 0 {
			r.tryLog(subjects...)
		}
		switch roll(20) { // what an operator may do; an error only puts it off
		case 0:
			_, _ = r.db.RetryDeadLetters(t.Context(), "crm", "", time.Now())
			d.Wake("crm")
		case 1:
			_, _ = r.db.QueueReplay(t.Context(), "crm", func(h event.Header) bool { return h.Sequence%5 == 0 }, time.Now().Add(-time.Minute), time.Now())
			d.Wake("crm")
		case 2:
			_ = d.Resume("crm")
		case 3:
			s.Key += "+"
			_ = d.Update(r.defaults([]delivery.Sink{s}))
		}
		time.Sleep(time.Duration(roll(4000)) * time.Millisecond)
	}
	fault = nil
	r.mu.Lock()
	r.fault = nil
	r.mu.Unlock()
	settle()
	alive()
	bad.Store(0)
	r.log("s0")             // the last page may be there without anybody having been told
	time.Sleep(time.Minute) // what is in flight may still answer 410
	if err := d.Resume("crm"); err != nil {
		t.Error(err)
	}
	time.Sleep(20 * time.Minute)
	stop()
	if err := r.db.Check(); err != nil {
		t.Error(err)
	}
	if m := v.missing(); len(m) > 0 || r.backlog("crm") != 0 {
		t.Errorf("missing %d, %d left, limit %d, batches of %d, %+v\n%s", m, r.backlog("crm"), v.limit, v.batch, d.Status(), r.out.String())
	}
}
