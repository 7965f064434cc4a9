package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"syncd/internal/event"
)

// benchLine is an event as syncd sends it, without the newline.
func benchLine(n int) []byte {
	id := fmt.Sprintf("%09d", n)
	item := appendBenchItem(nil, n)
	e := event.Event{
		ID: event.VersionEventID("shop", "items", id, 1, event.Fingerprint{}), Source: event.Source("bench", "shop", "items"), Type: "bench.item.created",
		Subject: "item/" + id, Time: benchEpoch.Add(time.Duration(n) * time.Millisecond), Recorded: benchEpoch, Sequence: uint64(n),
		PartitionKey: event.PartitionKey("shop", "item/"+id), Item: item,
	}
	return e.AppendJSON(nil)
}

// bareFile appends the same lines to a file, a page at a time, with an fsync after
// each.
func bareFile(b *testing.B, events int) (rate, cpu float64) {
	b.Helper()
	file, err := os.Create(filepath.Join(b.TempDir(), "bare.ndjson"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	var page []byte
	for i := range benchPage {
		page = append(append(page, benchLine(i+1)...), '\n')
	}
	return bare(events, func() {
		for range events / benchPage {
			if _, err := file.Write(page); err != nil {
				b.Fatal(err)
			}
			if err := file.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// barePosts posts the same bodies with net/http, as many at once, and nothing else.
func barePosts(b *testing.B, receiver peer, r benchRow) (rate, cpu float64) {
	b.Helper()
	body, kind := benchLine(1), "application/cloudevents+json"
	if r.batch > 1 {
		kind = "application/cloudevents-batch+json"
		body = fmt.Appendf(nil, "[%s]", bytes.Join(slicesOf(r.batch, body), []byte{','}))
	}
	transport := &http.Transport{MaxIdleConnsPerHost: r.inFlight, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	receiver.reset(b, r.events)
	return bare(r.events, func() {
		var left atomic.Int64
		left.Store(int64(r.events / r.batch))
		var senders sync.WaitGroup
		for range r.inFlight {
			senders.Go(func() {
				for left.Add(-1) >= 0 {
					resp, err := client.Post(receiver.url+"/hook", kind, bytes.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
		senders.Wait()
	})
}

func slicesOf(n int, s []byte) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// bare measures what fn does with a number of events.
func bare(events int, fn func()) (rate, cpu float64) {
	used, began := cpuTime(), time.Now()
	fn()
	n := float64(events)
	return n / time.Since(began).Seconds(), (cpuTime() - used).Seconds() * 1e5 / n
}

// benchTable is what people read.
type benchTable struct {
	rows  []benchRow
	cells []measured
}

func (t *benchTable) add(r benchRow, m measured) {
	t.rows, t.cells = append(t.rows, r), append(t.cells, m)
}

func (t *benchTable) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nAPI →\tevents/s\tof the best tool\tof bare\tCPU-s\tof the tool's\tof bare\tfsyncs\tallocs\tAPI's CPU-s\treceiver's\tbare: events/s\tCPU-s\tbest tool\t")
	for i, r := range t.rows {
		m, note := t.cells[i], ""
		if r.best.cpuIsFile {
			note = "*"
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.2f ×\t%.0f %%\t%.2f\t%.0f %%%s\t%.0f %%\t%.0f\t%.0f\t%.2f\t%.2f\t%.0f\t%.2f\t%s\t\n", r.name,
			m.rate, m.rate/r.best.rate, 100*m.rate/m.bareRate, m.cpu, 100*m.cpu/r.best.cpu, note, 100*m.cpu/m.bareCPU,
			m.fsyncs, m.allocs, m.apiCPU, m.endCPU, m.bareRate, m.bareCPU, r.best.name)
	}
	w.Flush()
	fmt.Fprint(out, `
CPU-s and fsyncs are those of the syncd process for 100,000 events, allocs for one. Bare is
net/http posting the same bodies as many at once, and for the file append and fsync of the
same lines a page at a time, in this very run. The tools' figures are constants, measured on
another day: quote the ratios. * their file's CPU: that of their batches was not measured.
`)
}
