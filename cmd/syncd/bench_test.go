package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"syncd/internal/config"
	"syncd/internal/event"
	"syncd/internal/sink"
)

// benchRow is one way from the API to a receiver.
type benchRow struct {
	name     string
	events   int // of one measurement: it takes some seconds
	inFlight int // requests to the receiver; 0: a file
	batch    int // events of a request
	best     tool
}

// tool is the best general pipeline tool at the same work, which keeps none of
// syncd's guarantees: no fsync, no state but a cursor, no signature, no order. They
// were measured by themselves, on the class of machine that the benchmark is for.
type tool struct {
	name      string
	rate      float64 // events a second
	cpu       float64 // seconds per 100,000 events; of batches, where it was not measured, that of their file, which costs them less
	cpuIsFile bool
}

var benchRows = []benchRow{
	{name: "file, sync: commit", events: 60_000, best: tool{name: "Benthos 4.76", rate: 30_600, cpu: 4.8}},
	{name: "webhook, 1 in flight", events: 8_000, inFlight: 1, batch: 1, best: tool{name: "Bento 1.20", rate: 3_700, cpu: 21.3}},
	{name: "webhook, 8 in flight", events: 20_000, inFlight: 8, batch: 1, best: tool{name: "Benthos 4.76", rate: 6_600, cpu: 20.8}},
	{name: "webhook, 64 in flight", events: 20_000, inFlight: 64, batch: 1, best: tool{name: "Benthos 4.76", rate: 6_600, cpu: 20.8}},
	{name: "webhook, batches of 100", events: 60_000, inFlight: 8, batch: 100, best: tool{name: "Bento 1.20", rate: 26_600, cpu: 6.1, cpuIsFile: true}},
}

// measured is what a number of events took. Numbers of each column are for events/s,
// and for 100,000 events.
type measured struct {
	rate              float64 // from the first request to the API to the last event at its receiver
	cpu               float64 // of this process, start and stop of syncd included
	fsyncs            float64
	allocs            float64 // for each event
	apiCPU, endCPU    float64 // of the API, and of who got the events
	bareRate, bareCPU float64 // the yardstick: see bareFile and barePosts
}

// benchSyncs counts the fsyncs of file sinks.
var benchSyncs atomic.Int64

// countedFile is a file sink whose fsyncs are counted: Deliver makes one.
type countedFile struct{ *sink.File }

func (f countedFile) Deliver(ctx context.Context, events []event.Logged) error {
	benchSyncs.Add(1)
	return f.File.Deliver(ctx, events)
}

// BenchmarkPipeline measures the program as it is shipped, from an API that answers
// at once to a file and to a webhook: the daemon with its state file, fsyncs, order,
// signatures and metrics. Only the marketplace is its own: see benchMarketplace. Each
// row is measured as often as -benchtime says, beside its yardstick; the table has
// the medians.
func BenchmarkPipeline(b *testing.B) {
	defer runtime.KeepAlive(tuneGC(os.Getenv)) // as main does
	known, openFile := marketplaces, sinkTypes[config.TypeFile]
	marketplaces = append(slices.Clip(known), benchMarketplace())
	sinkTypes[config.TypeFile] = func(s config.Sink, out *sink.Stdout) (sink.Sink, error) {
		opened, err := openFile(s, out)
		if err != nil {
			return nil, err
		}
		return countedFile{opened.(*sink.File)}, nil
	}
	b.Cleanup(func() { marketplaces, sinkTypes[config.TypeFile] = known, openFile })
	api, receiver := startPeer(b, "api"), startPeer(b, "receiver")
	var table benchTable
	for _, row := range benchRows {
		b.Run(row.name, func(b *testing.B) {
			var runs []measured
			for b.Loop() {
				m := row.measure(b, api, receiver)
				if row.inFlight == 0 {
					m.bareRate, m.bareCPU = bareFile(b, row.events)
				} else {
					m.bareRate, m.bareCPU = barePosts(b, receiver, row)
				}
				runs = append(runs, m)
			}
			m := medians(runs)
			b.ReportMetric(m.rate, "events/s")
			b.ReportMetric(m.cpu, "cpu-s/100k")
			b.ReportMetric(m.fsyncs, "fsyncs/100k")
			b.ReportMetric(m.allocs, "allocs/event")
			b.ReportMetric(0, "ns/op")
			table.add(row, m)
		})
	}
	table.print(os.Stdout)
}

// medians are those of each column.
func medians(runs []measured) (m measured) {
	of := func(field func(m *measured) *float64) {
		slices.SortFunc(runs, func(a, b measured) int { return cmp.Compare(*field(&a), *field(&b)) })
		*field(&m) = *field(&runs[len(runs)/2])
	}
	of(func(m *measured) *float64 { return &m.rate })
	of(func(m *measured) *float64 { return &m.cpu })
	of(func(m *measured) *float64 { return &m.fsyncs })
	of(func(m *measured) *float64 { return &m.allocs })
	of(func(m *measured) *float64 { return &m.apiCPU })
	of(func(m *measured) *float64 { return &m.endCPU })
	of(func(m *measured) *float64 { return &m.bareRate })
	of(func(m *measured) *float64 { return &m.bareCPU })
	return m
}

// measure lets syncd bring the events of a row to their receiver once.
func (r benchRow) measure(b *testing.B, api, receiver peer) (m measured) {
	b.Helper()
	dir := b.TempDir()
	state, out, config := filepath.Join(dir, "syncd.db"), filepath.Join(dir, "events.ndjson"), filepath.Join(dir, "syncd.yaml")
	for path, text := range map[string]string{config: r.config(api.url, receiver.url, freeAddress(b)), filepath.Join(dir, "token"): "bench", filepath.Join(dir, "secret"): e2eSecret} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	api.reset(b, r.events)
	receiver.reset(b, r.events)
	if r.inFlight == 0 {
		receiver.get(b, "/bench/follow?path="+out, nil)
	}

	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, syncs := cpuTime(), benchSyncs.Load()
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"run", "--config", config}, func(string) string { return "" }, io.Discard, log)
	}()
	fail := func(why string) {
		text, _ := os.ReadFile(log.Name())
		b.Fatalf("%s\n%s", why, text)
	}
	all := make(chan error, 1)
	go func() { all <- receiver.wait() }()
	select {
	case err := <-all:
		if err != nil {
			b.Error(err)
		}
	case code := <-ended:
		fail(fmt.Sprint("syncd has ended by itself with exit code ", code))
	}
	stop()
	code := <-ended
	cpu = cpuTime() - cpu
	runtime.ReadMemStats(&after)
	gave, got := api.now(b), receiver.now(b)
	if code != 0 || got.Events != r.events || gave.Events != r.events {
		fail(fmt.Sprintf("exit code %d, %d events of the API, %d at the receiver, want %d", code, gave.Events, got.Events, r.events))
	}
	n := float64(r.events)
	return measured{
		rate: n / got.Last.Sub(gave.First).Seconds(), cpu: cpu.Seconds() * 1e5 / n, apiCPU: gave.CPU.Seconds() * 1e5 / n, endCPU: got.CPU.Seconds() * 1e5 / n,
		allocs: float64(after.Mallocs-before.Mallocs) / n, fsyncs: float64(stateSyncs(b, state)+benchSyncs.Load()-syncs) * 1e5 / n,
	}
}

// config is the configuration of one measurement.
func (r benchRow) config(api, receiver, listen string) string {
	sink := `{name: out, type: file, path: events.ndjson, sync: commit}`
	if r.inFlight > 0 {
		batch := ""
		if r.batch > 1 {
			batch = fmt.Sprintf(", batch: {max_events: %d, max_wait: 20ms}", r.batch)
		}
		sink = fmt.Sprintf(`{name: out, type: webhook, url: %q, secret_file: secret, concurrency: %d%s}`, receiver+"/hook", r.inFlight, batch)
	}
	return fmt.Sprintf(`
state: {path: syncd.db}
server: {listen: %q}
accounts:
  - {name: shop, marketplace: bench, token_file: token, start: beginning, endpoints: {api: %q}}
sinks:
  - %s
`, listen, api, sink)
}

// freeAddress is where nothing listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// stateSyncs is how many fsyncs a state file has seen, which was made for the
// measurement: two of each commit (bbolt syncs the pages, then the meta page that
// leads to them), and one for each 16 MiB by which the file grew.
func stateSyncs(b *testing.B, path string) int64 {
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	const page, txid = 4 << 10, 16 + 48 // the first two pages are the metas
	raw := make([]byte, 2*page)
	info, err := file.Stat()
	if _, err2 := file.ReadAt(raw, 0); cmp.Or(err, err2) != nil {
		b.Fatal(cmp.Or(err, err2))
	}
	commits := max(binary.NativeEndian.Uint64(raw[txid:]), binary.NativeEndian.Uint64(raw[page+txid:]))
	return 2*int64(commits) + info.Size()>>24
}
