package poller_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/wildberries"
	"syncd/internal/state"
)

// ready hands out pages that are there already.
type ready struct {
	pages []sources.Page
	next  int
}

func (s *ready) Seller() string { return "seller-1" }

func (s *ready) Fetch(context.Context, sources.Query) (sources.Page, error) {
	page := s.pages[s.next]
	s.next++
	page.Cursor, page.Done = fmt.Appendf(nil, `{"at":%d}`, s.next), s.next == len(s.pages)
	return page, nil
}

// questionBody is an item of about 640 bytes, as questions have.
func questionBody(i int) json.RawMessage {
	return fmt.Appendf(nil, `{"id":"question-%09d","text":"%0*d","createdDate":%q,"state":"suppliersPortalSynch","answer":null,"productDetails":{"imtId":11157265,"nmId":14917842,"productName":"Coffee","supplierArticle":"123401","brandName":"Nescafe"},"wasViewed":false,"isWarned":false}`,
		i, 350, i, time.Unix(1_700_000_000+int64(i), 0).UTC().Format(time.RFC3339))
}

func pagesOf(from, n, size int) []sources.Page {
	pages := make([]sources.Page, 0, n/size)
	for at := from; at < from+n; at += size {
		p := sources.Page{Items: make([]sources.Item, size)}
		for i := range p.Items {
			id := fmt.Sprintf("question-%09d", at+i)
			p.Items[i] = sources.Item{Kind: "question", ID: []string{id}, Subject: []string{"question", id},
				Created: time.Unix(1_700_000_000+int64(at+i), 0), Body: questionBody(at + i)}
		}
		pages = append(pages, p)
	}
	return pages
}

// bench is a state file whose commits are counted.
type bench struct {
	db      *state.DB
	commits atomic.Int64
}

func newBench(b *testing.B, path string) *bench {
	b.Helper()
	s := new(bench)
	var err error
	s.db, err = state.Open(state.Config{Path: path, Commit: func(commit func() error) error {
		s.commits.Add(1)
		return commit()
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.db.Close() })
	return s
}

// once brings the streams up to date, and returns what that needed.
func (s *bench) once(b *testing.B, streams ...poller.Stream) (commits int, mallocs uint64, cpu, took time.Duration) {
	b.Helper()
	p, err := poller.New(poller.Config{DB: s.db, Log: slog.New(slog.DiscardHandler), Metrics: poller.NewMetrics(prometheus.NewRegistry()), Streams: streams})
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	used, before := usage()
	first, begin := s.commits.Load(), time.Now()
	if left, err := p.Once(context.Background()); err != nil || len(left) > 0 {
		b.Fatal(left, err)
	}
	took = time.Since(begin)
	cpu, mallocs = usage()
	return int(s.commits.Load() - first), mallocs - before, cpu - used, took
}

func report(b *testing.B, items, commits int, mallocs uint64, cpu, took time.Duration) {
	n := float64(items)
	b.ReportMetric(n/took.Seconds(), "items/s")
	b.ReportMetric(cpu.Seconds()*100_000/n, "cpu-s/100000")
	b.ReportMetric(float64(mallocs)/n, "allocs/item")
	b.ReportMetric(float64(commits)/n, "fsyncs/item")
	b.ReportMetric(0, "ns/op")
}

// New items from a source that has them ready, through the engine into a real file.
func BenchmarkEngine(b *testing.B) {
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprintf("page=%d", size), func(b *testing.B) {
			items := 50 * size
			for b.Loop() {
				s := newBench(b, filepath.Join(b.TempDir(), "syncd.db"))
				st := poller.Stream{ID: questions, Marketplace: "wildberries", Group: "feedbacks", Schedule: "@every 5s", Start: &time.Time{},
					Source: &ready{pages: pagesOf(0, items, size)}}
				commits, mallocs, cpu, took := s.once(b, st)
				report(b, items, commits, mallocs, cpu, took)
			}
		})
	}
}

// chatServer answers as seller/events does, with events of about 640 bytes, a
// millisecond apart.
func chatServer(b *testing.B, events, page int) *httptest.Server {
	began := time.Now().Add(-time.Hour).UnixMilli()
	bodies := make([][]byte, events)
	for i := range bodies {
		bodies[i] = fmt.Appendf(nil, `{"chatID":"1:%08d-9c74-4c54-8a2e-1de1e2f6a3c1","eventID":"event-%09d","eventType":"message","isNewChat":false,"message":{"text":"%0*d"},"source":"seller-portal","addTimestamp":%d,"addTime":%q,"sender":"client","clientName":"Client"}`,
			i%100, i, 380, i, began+int64(i), time.UnixMilli(began+int64(i)).UTC().Format(time.RFC3339))
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next, _ := strconv.ParseInt(r.URL.Query().Get("next"), 10, 64)
		list := bodies[min(max(next-began, 0), int64(events)):]
		list = list[:min(len(list), page)]
		newest := max(next, began+int64(events)-1)
		if len(list) > 0 {
			newest = max(next, began) + int64(len(list)) - 1
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"result":{"next":%d,"totalEvents":%d,"events":[%s]},"errors":null}`, newest, len(list), bytes.Join(list, []byte{','}))
	}))
	b.Cleanup(server.Close)
	return server
}

// wbToken is a token of real form, of its own seller.
func wbToken(seller int) string {
	payload := fmt.Sprintf(`{"acc":3,"exp":4102444800,"id":"0190b8a1","s":16126,"sid":"2f0c0b6a-5a4f-4a1c-9f0e-%012d","t":false}`, seller)
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + e([]byte(payload)) + "." + e([]byte("signature"))
}

// The same by the real client, from a server on the loopback. The budget has no
// part in it: each of many sellers sends no more than what a rested bucket holds.
func BenchmarkEngineWildberries(b *testing.B) {
	const sellers, events, page = 30, 2000, 1000
	server := chatServer(b, events, page)
	for b.Loop() {
		s := newBench(b, filepath.Join(b.TempDir(), "syncd.db"))
		budgets, metrics := apiclient.NewBudgets(&ledger{}, slog.New(slog.DiscardHandler)), apiclient.NewMetrics(prometheus.NewRegistry())
		streams := make([]poller.Stream, sellers)
		for i := range streams {
			cfg := wildberries.Config{Account: fmt.Sprint("shop-", i), Tokens: make(map[string]string), Endpoints: make(map[string]string), BudgetShare: 1,
				Budgets: budgets, Metrics: metrics, Transport: http.DefaultTransport, UserAgent: "syncd/bench", Grace: time.Second}
			for group := range wildberries.Groups() {
				cfg.Tokens[group], cfg.Endpoints[group] = wbToken(i), server.URL
			}
			client, err := wildberries.New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			streams[i] = poller.Stream{ID: state.StreamID{Account: cfg.Account, Stream: wildberries.ChatEvents}, Marketplace: wildberries.Marketplace,
				Group: wildberries.GroupChat, Source: client, Schedule: "@every 5s", Overlap: time.Minute, Start: &time.Time{}}
		}
		time.Sleep(10 * time.Second) // until the buckets are full: 9 requests each
		commits, mallocs, cpu, took := s.once(b, streams...)
		report(b, sellers*events, commits, mallocs, cpu, took)
		if seq, err := s.db.LastSequence(); err != nil || seq != sellers*events {
			b.Fatalf("%d events: %v", seq, err)
		}
	}
}

// An idle poll, here of a page of 100 known items, costs the same however many
// records there are, and writes nothing.
func BenchmarkIdlePoll(b *testing.B) {
	for _, records := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			s := newBench(b, tempFile(b))
			page := pagesOf(0, 100, 100)[0]
			page.Done = true
			st := poller.Stream{ID: questions, Marketplace: "wildberries", Schedule: "@every 5s", Start: &time.Time{}, Source: &idle{seller: "seller-1", polls: new(atomic.Int64), page: page}}
			s.once(b, st)
			for at := 0; at < records; at += 10_000 { // what came before, small
				p := state.Page{Stream: questions, Marketplace: "wildberries", Walk: "news", Stamp: s.db.Stamp(), Now: time.Now(), Items: make([]state.Item, min(10_000, records-at))}
				for i := range p.Items {
					id := fmt.Sprintf("before-%09d", at+i)
					p.Items[i] = state.Item{ID: id, Kind: "question", Subject: "question/" + id, Created: time.Unix(1_600_000_000+int64(at+i), 0), Immutable: true, Silent: true, Body: json.RawMessage(`{}`)}
				}
				if _, err := s.db.CommitPage(p); err != nil {
					b.Fatal(err)
				}
			}
			p, err := poller.New(poller.Config{DB: s.db, Log: slog.New(slog.DiscardHandler), Metrics: poller.NewMetrics(prometheus.NewRegistry()), Streams: []poller.Stream{st}})
			if err != nil {
				b.Fatal(err)
			}
			before := s.commits.Load()
			b.ReportAllocs()
			for b.Loop() {
				if left, err := p.RunOnly(context.Background(), sources.News, questions.Account, questions.Stream); err != nil || len(left) > 0 {
					b.Fatal(left, err)
				}
			}
			b.ReportMetric(float64(s.commits.Load()-before), "fsyncs")
		})
	}
}
