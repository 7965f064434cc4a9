package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress is a bar on a terminal while long work goes on. Log lines, which share
// the terminal, go through Log and push the bar down. Where standard error is no
// terminal there is no bar: the poller logs a line now and then.
type progress struct {
	out      io.Writer
	terminal bool

	mu  sync.Mutex
	bar *progressbar.ProgressBar // nil: not shown
}

func newProgress(stderr io.Writer) *progress {
	return &progress{out: stderr, terminal: isTerminal(stderr)}
}

// barWidth leaves room for the text on a terminal of 80 columns.
const barWidth = 20

// work is one run that is going on.
type work struct {
	name     string
	items    int
	requests int
	share    float64 // 0: unknown
}

// Log returns where log lines go meanwhile.
func (p *progress) Log() io.Writer {
	if !p.terminal {
		return p.out
	}
	return &aboveBar{p}
}

// aboveBar takes the bar away for a line.
type aboveBar struct{ p *progress }

func (w *aboveBar) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.p.bar != nil {
		_ = w.p.bar.Clear() // what cannot be drawn is not worth an error
	}
	n, err := w.p.out.Write(b)
	if w.p.bar != nil && bytes.HasSuffix(b, []byte("\n")) {
		_ = w.p.bar.RenderBlank()
	}
	return n, err
}

// Run shows what is going on until ctx ends.
func (p *progress) Run(ctx context.Context, going func() []work) {
	if !p.terminal {
		return
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p.hide()
			return
		case <-tick.C:
			p.draw(going())
		}
	}
}

func (p *progress) hide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

const barParts = 1000

// draw shows one bar for all: the mean of what is known, and the longest one's
// name.
func (p *progress) draw(all []work) {
	if len(all) == 0 {
		p.hide()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar == nil {
		p.bar = progressbar.NewOptions(barParts, progressbar.OptionSetWriter(p.out), progressbar.OptionSetWidth(barWidth),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionUseANSICodes(true))
	}
	text, share := summary(all)
	p.bar.Describe(p.fit(text))
	_ = p.bar.Set(int(share * (barParts - 1))) // full would end it
}

// besideText is what the bar, its frame and the percentage take of a line.
const besideText = barWidth + 12

// fit cuts the text so that the line does not wrap: it could not be erased.
func (p *progress) fit(text string) string {
	width := 80
	if f, ok := p.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			width = w
		}
	}
	r := []rune(text)
	return string(r[:max(0, min(len(r), width-besideText))])
}

// summary is the text beside the bar, and how far it goes.
func summary(all []work) (text string, share float64) {
	first, items, requests := all[0], 0, 0
	for _, w := range all {
		items, requests = items+w.items, requests+w.requests
		share += min(w.share, 1) / float64(len(all))
		if w.items > first.items {
			first = w
		}
	}
	text = first.name
	if len(all) > 1 {
		text += fmt.Sprintf(" and %d more", len(all)-1)
	}
	text += fmt.Sprintf(": %d items", items)
	if requests > 0 { // an export makes none
		text += fmt.Sprintf(", %d requests", requests)
	}
	return text, share
}
