package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	lineExt  = ".ndjson"
	packExt  = ".ndjson.zst"
	draftExt = ".ndjson.zst.tmp" // of a compression that is not complete
	maxTwins = 9                 // files with one first sequence
)

// rotatedFile is the name of a rotated file, less its directory and stem.
type rotatedFile struct {
	first uint64 // sequence of its first event
	n     int    // 1, or the suffix that tells it from others with this sequence
	ext   string
}

func (r rotatedFile) name(stem string) string {
	suffix := ""
	if r.n > 1 {
		suffix = "-" + strconv.Itoa(r.n)
	}
	return fmt.Sprintf("%s-%020d%s%s", stem, r.first, suffix, r.ext)
}

// names are r's path with an extension, and those to try where it is taken.
func (r rotatedFile) names(dir, stem, ext string) []string {
	var names []string
	for r.ext = ext; r.n <= maxTwins; r.n++ {
		names = append(names, filepath.Join(dir, r.name(stem)))
	}
	return names
}

// parseRotated is the reverse of name, and takes nothing that name does not give.
func parseRotated(stem, name string) (rotatedFile, bool) {
	rest, ok := strings.CutPrefix(name, stem+"-")
	if !ok {
		return rotatedFile{}, false
	}
	middle, _, _ := strings.Cut(rest, ".")
	r := rotatedFile{n: 1, ext: rest[len(middle):]}
	digits, suffix, twin := strings.Cut(middle, "-")
	var err, errN error
	r.first, err = strconv.ParseUint(digits, 10, 64)
	if twin {
		r.n, errN = strconv.Atoi(suffix)
	}
	ok = err == nil && errN == nil && r.n <= maxTwins && (r.ext == lineExt || r.ext == packExt || r.ext == draftExt)
	return r, ok && r.name(stem) == name
}

// rotatedPlace is the directory and the stem of the rotated files of a file.
func rotatedPlace(path string) (dir, stem string) {
	return filepath.Dir(path), strings.TrimSuffix(filepath.Base(path), lineExt)
}

// openRotated opens a rotated file for reading, if it is a regular file.
func openRotated(path string) (*os.File, fs.FileInfo, error) {
	// Not through a symbolic link, and a FIFO must not block us.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = checkRegular(path, info)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

// attic is the rotated files of a File, and the work on them that goes on in the
// background, a pass at a time. It belongs to the File's one call that runs.
type attic struct {
	due    bool      // there may be work for a pass
	next   time.Time // not before: the last one has failed
	told   string    // of that failure
	done   chan error
	cancel context.CancelFunc // with done, of the pass that runs; nil: none does
}

// stop breaks off the pass that runs.
func (a *attic) stop() {
	if a.done != nil {
		a.cancel()
		<-a.done
		a.done = nil
	}
}

// lookAfterRotated begins and ends the work in the background. All that the
// file holds is committed.
func (f *File) lookAfterRotated(now time.Time, t *Tended) {
	a := &f.attic
	if a.done != nil {
		select {
		case err := <-a.done:
			a.cancel()
			a.done = nil
			a.next = time.Time{}
			if err != nil {
				a.due, a.next = true, now.Add(rotateRetry)
				t.tell(&a.told, err)
			} else {
				a.told = ""
			}
		default:
			t.Busy = true
			t.soonest(now.Add(workLook))
			return
		}
	}
	if !a.due {
		return
	}
	if now.Before(a.next) {
		t.soonest(a.next)
		return
	}
	dir, stem := rotatedPlace(f.file.Name())
	p := pass{dir: dir, stem: stem, keep: f.rotate.Keep, compress: f.rotate.Compress, before: f.mark.Last + 1, steps: f.steps}
	if f.mark.Begun != 0 {
		p.before = f.mark.First
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.run(ctx) }()
	a.due, a.done, a.cancel = false, done, cancel
	t.Busy = true
	t.soonest(now.Add(workLook))
}

// pass is one look at the rotated files: what is too old goes, what a crash has
// left half done is completed, and what is not compressed is.
//
// It knows files by their names alone, and touches only such as end before the
// sequence `before`: beside a state that is older than the files, there may be
// some that hold what is yet to be written.
type pass struct {
	dir, stem string
	keep      int
	compress  bool
	before    uint64
	steps     steps
}

// run does what can be done, and returns what failed. It stops when ctx ends.
func (p *pass) run(ctx context.Context) error {
	files, err := p.list()
	if err != nil {
		return fmt.Errorf("look for rotated files: %w", err)
	}
	var errs []error
	if files, err = p.expire(files); err != nil {
		errs = append(errs, fmt.Errorf("delete a rotated file: %w", err))
	}
	for _, r := range files {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !p.needsWork(r):
			err = nil
		case r.ext == draftExt:
			err = p.steps.remove(p.path(r))
		default:
			err = p.pack(ctx, r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("compress a rotated file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// needsWork says that there is something to do about a rotated file: one that is not to
// be compressed is touched only if a crash may have left it beside its compressed one.
func (p *pass) needsWork(r rotatedFile) bool {
	if r.ext != lineExt || p.compress {
		return r.ext != packExt
	}
	_, err := os.Lstat(r.names(p.dir, p.stem, packExt)[0])
	return err == nil
}

func (p *pass) path(r rotatedFile) string { return filepath.Join(p.dir, r.name(p.stem)) }

// list returns the rotated files, oldest first. It holds no other names of the
// directory in memory, and where all are kept, only those that need work.
func (p *pass) list() ([]rotatedFile, error) {
	dir, err := os.Open(p.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var files []rotatedFile
	for {
		entries, err := dir.ReadDir(256)
		for _, e := range entries {
			r, ok := parseRotated(p.stem, e.Name())
			if !ok || !e.Type().IsRegular() || r.first >= p.before || p.keep == 0 && !p.needsWork(r) {
				continue
			}
			files = append(files, r)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(files, func(a, b rotatedFile) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.n, b.n), cmp.Compare(a.ext, b.ext))
	})
	return files, nil
}

// expire deletes the oldest files, so that the others are of no more than keep
// first sequences, and returns those that stay. Files with one first sequence
// count as one, for most likely they are one: being compressed.
func (p *pass) expire(files []rotatedFile) ([]rotatedFile, error) {
	if p.keep == 0 {
		return files, nil
	}
	stay, kept := len(files), 0
	for i := len(files) - 1; i >= 0; i-- {
		if i == len(files)-1 || files[i].first != files[i+1].first {
			kept++
		}
		if kept > p.keep {
			break
		}
		stay = i
	}
	var errs []error
	for _, r := range files[:stay] {
		errs = append(errs, p.steps.remove(p.path(r)))
	}
	return files[stay:], errors.Join(errs...)
}
