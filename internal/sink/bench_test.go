package sink_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

// receiverEnv makes this binary the receiver of a benchmark instead of a test.
const receiverEnv = "SYNCD_TEST_RECEIVER"

func TestMain(m *testing.M) {
	if os.Getenv(receiverEnv) != "" {
		if err := receive(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// receive acknowledges whatever comes, says where on its output, and ends with
// its input.
func receive() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	fmt.Println(listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// startReceiver returns the URL of a receiver in a process of its own.
func startReceiver(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), receiverEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return "http://" + strings.TrimSpace(addr) + "/hook"
}

// BenchmarkWebhook is this process's part of a delivery, beside what net/http
// alone takes for the same bodies. An op is a request.
func BenchmarkWebhook(b *testing.B) {
	url := startReceiver(b)
	item := `{"text":"` + strings.Repeat("x", 180) + `"}`
	batch := make([]event.Logged, 100)
	for i := range batch {
		batch[i] = sinktest.Event(i, item)
	}
	for _, size := range []int{1, len(batch)} {
		events := batch[:size]
		var body []byte
		for _, e := range events {
			body = append(append(body, ','), e.JSON...)
		}
		for _, concurrency := range []int{1, 8, 64} {
			name := fmt.Sprintf("events=%d/concurrency=%d/", size, concurrency)
			b.Run(name+"sink", func(b *testing.B) {
				w := newWebhook(b, sink.WebhookConfig{URL: url, Secrets: []string{testSecret}, Concurrency: concurrency, Batch: size > 1})
				hammer(b, concurrency, func() error { return w.Deliver(b.Context(), events) })
			})
			b.Run(name+"net-http", func(b *testing.B) {
				transport := &http.Transport{MaxIdleConnsPerHost: concurrency}
				defer transport.CloseIdleConnections()
				client := &http.Client{Transport: transport}
				hammer(b, concurrency, func() error {
					resp, err := client.Post(url, "application/json", bytes.NewReader(body))
					if err != nil {
						return err
					}
					defer resp.Body.Close()
					_, err = io.Copy(io.Discard, resp.Body)
					return err
				})
			})
		}
	}
}

// hammer calls f b.N times, from several goroutines.
func hammer(b *testing.B, concurrency int, f func() error) {
	b.ReportAllocs()
	cpu := processorTime(b)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64((processorTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
