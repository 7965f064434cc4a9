package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// benchPeer says in the environment of a process which side of the wire it is: the
// API, or who gets the events. Those have processes of their own, so that what syncd
// costs can be told from what they do.
const benchPeer = "SYNCD_BENCH_PEER"

// init comes before TestMain, which would run tests.
func init() {
	switch os.Getenv(benchPeer) {
	case "":
		return
	case "api":
		serveBenchPeer(&benchAPI{tally: newTally()})
	case "receiver":
		serveBenchPeer(&benchReceiver{tally: newTally()})
	}
	os.Exit(0)
}

// benchSide is a peer as its own process sees it.
type benchSide interface {
	http.Handler
	counts() *tally
}

// serveBenchPeer serves until the benchmark, whose pipe standard input is, has ended
// in whatever way.
func serveBenchPeer(p benchSide) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	mux := http.NewServeMux()
	mux.Handle("/", p)
	mux.HandleFunc("/bench/reset", p.counts().reset)
	mux.HandleFunc("/bench/stats", p.counts().stats)
	if r, ok := p.(*benchReceiver); ok {
		mux.HandleFunc("/bench/follow", r.follow)
	}
	fmt.Println("http://" + listener.Addr().String())
	go http.Serve(listener, mux)
	io.Copy(io.Discard, os.Stdin)
}

// peerStats is what a peer has seen and used since the last reset.
type peerStats struct {
	First, Last time.Time // of the events that it has handed out or got
	Events      int
	CPU         time.Duration
}

// tally counts the events that go through a peer.
type tally struct {
	mu     sync.Mutex
	want   int
	cpu    time.Duration // at the last reset
	seen   peerStats
	enough chan struct{} // closed when there are as many as wanted
}

func newTally() *tally { return &tally{enough: make(chan struct{})} }

func (t *tally) counts() *tally { return t }

func (t *tally) add(n int) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen.First.IsZero() {
		t.seen.First = now
	}
	was := t.seen.Events
	t.seen.Last, t.seen.Events = now, was+n
	if was < t.want && was+n >= t.want {
		close(t.enough)
	}
}

// reset begins a measurement of ?want= events.
func (t *tally) reset(_ http.ResponseWriter, r *http.Request) {
	want, _ := strconv.Atoi(r.FormValue("want"))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.want, t.seen, t.cpu, t.enough = want, peerStats{}, cpuTime(), make(chan struct{})
}

// stats tells, with ?wait= when there are as many events as wanted, or after a minute.
func (t *tally) stats(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	enough := t.enough
	t.mu.Unlock()
	if r.FormValue("wait") != "" {
		select {
		case <-enough:
		case <-time.After(time.Minute):
		case <-r.Context().Done():
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.seen
	seen.CPU = cpuTime() - t.cpu
	json.NewEncoder(w).Encode(seen)
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchAPI lists items by a cursor: those behind ?after=, 100 a page, as many as the
// measurement wants.
type benchAPI struct{ *tally }

const benchPage = 100

// benchEpoch is when the first item was made; each is a millisecond younger than the
// one before.
var benchEpoch = time.Now().Add(-24 * time.Hour).Truncate(time.Hour)

// benchText makes an item 640 bytes long.
var benchText = strings.Repeat("Подойдёт ли к этой модели? ", 6)

func appendBenchItem(b []byte, n int) []byte {
	return fmt.Appendf(b, `{"id":"%09d","text":"%s","createdDate":"%s","state":"suppliersPortalSynch","answer":null,`+
		`"productDetails":{"imtId":11157265,"nmId":14917842,"productName":"Coffee","supplierArticle":"123401","brandName":"Nescafe"},`+
		`"photo":"https://photos.example.com/11157265/%09d.webp?signature=0f6b","wasViewed":false,"isWarned":false}`,
		n, benchText, benchEpoch.Add(time.Duration(n)*time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z"), n)
}

func (a *benchAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.Atoi(r.FormValue("after"))
	a.mu.Lock()
	n := max(0, min(a.want-after, benchPage))
	a.mu.Unlock()
	b := make([]byte, 0, 70<<10)
	b = append(b, `{"items":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendBenchItem(b, after+i+1)
	}
	b = fmt.Appendf(b, `],"next":%d}`, after+n)
	if n > 0 {
		a.add(n)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
}

// benchReceiver takes webhooks, single events and batches, or follows a file.
type benchReceiver struct{ *tally }

func (r *benchReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	n := 1
	if strings.HasPrefix(req.Header.Get("Content-Type"), "application/cloudevents-batch+json") {
		body, _ := io.ReadAll(req.Body)
		n = bytes.Count(body, []byte(`{"specversion":`))
	} else {
		io.Copy(io.Discard, req.Body)
	}
	r.add(n)
	w.WriteHeader(http.StatusNoContent)
}

// follow counts the lines that come into the file ?path= until the measurement has
// what it wants.
func (r *benchReceiver) follow(_ http.ResponseWriter, req *http.Request) {
	path := req.FormValue("path")
	go func() {
		var file *os.File
		buf := make([]byte, 1<<20)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
			if file == nil {
				var err error
				if file, err = os.Open(path); err != nil {
					continue
				}
				defer file.Close()
			}
			for {
				n, _ := file.Read(buf)
				if lines := bytes.Count(buf[:n], []byte("\n")); lines > 0 {
					r.add(lines)
				}
				if n == 0 {
					break
				}
			}
			select {
			case <-r.enough:
				return
			default:
			}
		}
	}()
}

// peer is a peer as the benchmark sees it.
type peer struct{ url string }

func startPeer(b *testing.B, role string) peer {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchPeer+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := cmp.Or(err, err2, cmd.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("the %s does not start: %v", role, err)
	}
	return peer{strings.TrimSpace(url)}
}

// ask asks the peer, and reads its answer into out where there is one to expect.
func (p peer) ask(path string, out any) error {
	resp, err := http.Get(p.url + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (p peer) get(b *testing.B, path string, out any) {
	b.Helper()
	if err := p.ask(path, out); err != nil {
		b.Fatal(err)
	}
}

// reset begins a measurement of so many events.
func (p peer) reset(b *testing.B, want int) { p.get(b, fmt.Sprintf("/bench/reset?want=%d", want), nil) }

// wait returns when as many events as were wanted have been there, or after a minute.
func (p peer) wait() error { return p.ask("/bench/stats?wait=1", nil) }

// now is what the peer has seen.
func (p peer) now(b *testing.B) (s peerStats) {
	b.Helper()
	p.get(b, "/bench/stats", &s)
	return s
}
