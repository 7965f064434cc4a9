package state_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"syncd/internal/state"
)

// A settlement of 256 outcomes, without its fsync: what one costs in time and
// allocations.
func BenchmarkSettle(b *testing.B) {
	const group, subjects = 256, 4096
	db, err := state.Open(state.Config{Path: filepath.Join(b.TempDir(), "syncd.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.NoSync()
	var names []string
	for i := range subjects {
		names = append(names, fmt.Sprintf("question/%08d", i))
	}
	logOf(b, db, names...)
	settle := func(b *testing.B, sink string, s state.Settlement) {
		if err := db.Settle(sink, day, s); err != nil {
			b.Fatal(err)
		}
	}
	failed := func(at int) []state.Failed {
		var out []state.Failed
		for i := at; i < at+group; i++ {
			out = append(out, state.Failed{Seq: uint64(i%subjects + 1), Key: "shop-a/" + names[i%subjects], Attempts: 1 + i/subjects, First: day,
				Next: day.Add(time.Duration(i) * time.Millisecond), Status: 500, Error: "answer 500: the server is busy, try again later"})
		}
		return out
	}
	run := func(name string, prepare func(sink string, i int), settlement func(i int) state.Settlement) {
		b.Run(name, func(b *testing.B) {
			sink := fmt.Sprint(name, b.N)
			if _, err := db.OpenSink(sink, "webhook", true, day); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for i := range b.N {
				b.StopTimer()
				prepare(sink, i)
				s := settlement(i)
				b.StartTimer()
				settle(b, sink, s)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*group), "ns/event")
		})
	}
	var ahead []uint64
	for i := range uint64(group) {
		ahead = append(ahead, 1000+3*i)
	}
	run("acknowledged", func(string, int) {}, func(i int) state.Settlement {
		return state.Settlement{Position: uint64(i % 900), Ahead: ahead[i%100:]}
	})
	run("failed", func(sink string, i int) {
		if i%(subjects/group) == 0 { // out again
			s := state.Settlement{Position: subjects}
			for at := 0; at < subjects; at += group {
				s.Delivered = append(s.Delivered, failed(at)...)
			}
			settle(b, sink, s)
		}
	}, func(i int) state.Settlement {
		return state.Settlement{Position: subjects, Failed: failed(i * group % subjects)}
	})
	run("again", func(sink string, i int) {
		if i == 0 {
			for at := 0; at < subjects; at += group {
				settle(b, sink, state.Settlement{Position: subjects, Failed: failed(at)})
			}
		}
	}, func(i int) state.Settlement {
		return state.Settlement{Position: subjects, Attempts: failed(i * group)}
	})
	// Subjects of which two events wait: the first was delivered, the next moves up.
	run("moved up", func(sink string, i int) {
		s := state.Settlement{Position: subjects, Failed: failed(i * group % (subjects / 2))}
		for k := range group {
			f := s.Failed[k]
			f.Seq += subjects / 2
			s.Failed = append(s.Failed, f)
		}
		if i > 0 {
			s.Delivered = failed((i - 1) * group % (subjects / 2))
			for k := range s.Delivered {
				s.Delivered[k].Seq += subjects / 2
			}
		}
		settle(b, sink, s)
	}, func(i int) state.Settlement {
		return state.Settlement{Position: subjects, Delivered: failed(i * group % (subjects / 2))}
	})
}

// Waits is asked for every fresh event.
func BenchmarkWaits(b *testing.B) {
	db, err := state.Open(state.Config{Path: filepath.Join(b.TempDir(), "syncd.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.NoSync()
	const subjects = 10_000
	s := state.Settlement{Position: subjects}
	var names []string
	for i := range subjects {
		names = append(names, fmt.Sprintf("question/%08d", i))
		s.Failed = append(s.Failed, state.Failed{Seq: uint64(i + 1), Key: "shop-a/" + names[i], Attempts: 1, Next: day})
	}
	logOf(b, db, names...)
	if _, err := db.OpenSink("crm", "webhook", true, day); err != nil {
		b.Fatal(err)
	}
	if err := db.Settle("crm", day, s); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if waits, err := db.Waits("crm", s.Failed[i%subjects].Key); err != nil || !waits {
			b.Fatal(waits, err)
		}
	}
}
