package sink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// fileMark says how long the file is and by what it is known again. It is the
// checkpoint of a File.
//
// The file is known by its content and not by its inode: a restored, copied or
// moved file has another inode and is still ours, while the inode of a removed
// file is soon given to the next one. By both, it is found under another name.
type fileMark struct {
	Version int    `json:"v"`
	Path    string `json:"path"` // where it was: a sink that is given another path has lost nothing
	Inode   uint64 `json:"inode"`
	Size    int64  `json:"size"`
	Head    string `json:"head"` // hash of the first bytes: known even when the file was cut short
	Tail    string `json:"tail"` // hash of the last bytes: known at this very length
	// What rotation goes by.
	First uint64 `json:"first"` // sequence of the first event in the file
	Begun int64  `json:"begun"` // when that was written, in Unix milliseconds; 0: the file holds no event of ours
	Last  uint64 `json:"last"`  // sequence of the last event, of this file or an earlier one
}

const (
	markVersion = 1
	// The id of an event stands in the first hundred bytes of its line, so
	// that no two files of events begin the same.
	markHead = 256
	markTail = 1024
)

// readMark takes the mark of the file at a length that it has or had.
func (f *File) readMark(size int64) (fileMark, error) {
	m := fileMark{Version: markVersion, Path: markPath(f.path), Inode: inode(f.info), Size: size}
	var err error
	if m.Head, err = hashRange(f.file, 0, min(size, markHead)); err != nil {
		return fileMark{}, err
	}
	if m.Tail, err = hashRange(f.file, max(size-markTail, 0), size); err != nil {
		return fileMark{}, err
	}
	return m, nil
}

// markPath is a path as it comes back out of a checkpoint, which is JSON.
func markPath(path string) string { return strings.ToValidUTF8(path, "\uFFFD") }

func hashRange(file io.ReaderAt, from, to int64) (string, error) {
	b := make([]byte, to-from)
	if _, err := io.ReadFull(io.NewSectionReader(file, from, to-from), b); err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
}

func parseMark(checkpoint []byte) (*fileMark, error) {
	m := new(fileMark)
	if err := json.Unmarshal(checkpoint, m); err != nil {
		return nil, fmt.Errorf("checkpoint of a file sink: %w", err)
	}
	if m.Version != markVersion {
		return nil, fmt.Errorf("checkpoint of a file sink: version %d is not known to this syncd", m.Version)
	}
	if m.Size < 0 || m.Begun < 0 {
		return nil, fmt.Errorf("checkpoint of a file sink: size %d, begun at %d", m.Size, m.Begun)
	}
	return m, nil
}

// endsIn reports whether file, which is long enough, has the marked end where
// the mark says.
func (m *fileMark) endsIn(file io.ReaderAt) (bool, error) {
	tail, err := hashRange(file, max(m.Size-markTail, 0), m.Size)
	return tail == m.Tail, err
}

// begins reports whether file begins as the marked one did. Of a piece shorter
// than the hashed head nothing can be told.
func (m *fileMark) begins(file io.ReaderAt, size int64) (bool, error) {
	n := min(m.Size, markHead)
	if size < n {
		return false, nil
	}
	head, err := hashRange(file, 0, n)
	return head == m.Head, err
}

// Checkpoint implements Resumer. Before the first Resume it is nil.
func (f *File) Checkpoint() []byte {
	if f.mark.Version == 0 {
		return nil
	}
	b, err := json.Marshal(f.mark)
	if err != nil {
		panic(err) // strings and numbers
	}
	return b
}

// Resume implements Resumer: it opens the file and brings it to the length of
// the checkpoint, or explains why it cannot have it.
//
// Its checkpoint must be committed before the first Deliver: otherwise a crash
// in that Deliver leaves lines behind a length that nobody remembers.
//
// A crash anywhere in Resume is repaired by the next one, from the same
// checkpoint; each step says how.
func (f *File) Resume(ctx context.Context, checkpoint []byte, next iter.Seq2[[]byte, error]) (Report, error) {
	f.ready, f.dirty = false, false
	report, err := f.resume(ctx, checkpoint, next)
	if err != nil {
		return report, fmt.Errorf("resume %s: %w", f.path, err)
	}
	f.ready = true
	return report, nil
}

func (f *File) resume(ctx context.Context, checkpoint []byte, next iter.Seq2[[]byte, error]) (Report, error) {
	if ctx.Err() != nil {
		return Report{}, context.Cause(ctx)
	}
	var was *fileMark // nil: the sink was never used
	if checkpoint != nil {
		var err error
		if was, err = parseMark(checkpoint); err != nil {
			return Report{}, err
		}
		if err := f.cutRenamed(ctx, was, next); err != nil {
			return Report{}, err
		}
	}
	info, err := f.open()
	if err != nil {
		return Report{}, err
	}
	p, err := f.plan(ctx, was, info.Size(), next)
	if err != nil {
		return Report{}, err
	}
	report := Report{CutBytes: p.foreign - p.keep, Note: p.note}
	if p.foreign < p.size {
		if report.OrphanPath, err = f.moveAside(p, info); err != nil {
			return report, fmt.Errorf("move aside bytes that are not ours: %w", err)
		}
	}
	if err := f.cut(p); err != nil {
		return report, err
	}
	size, err := f.endLine(p.keep)
	if err != nil {
		return report, err
	}
	mark, err := f.readMark(size)
	if err != nil {
		return report, err
	}
	if was != nil {
		mark.Last = was.Last
	}
	if p.known && size > 0 {
		mark.First, mark.Begun = was.First, was.Begun
	}
	f.mark = mark
	// A crash may have left work of an earlier process.
	f.attic.due = f.rotate.enabled()
	return report, nil
}

// A plan is what Resume makes of a file of a given size: it keeps the first
// bytes; those from keep to foreign begin the log's next lines and are cut;
// those from foreign to size are somebody else's and are moved aside.
type plan struct {
	keep, foreign, size int64
	known               bool // it is the file of the checkpoint
	note                string
}

// plan decides, and changes nothing.
func (f *File) plan(ctx context.Context, was *fileMark, size int64, next iter.Seq2[[]byte, error]) (plan, error) {
	p := plan{foreign: size, size: size}
	if was == nil {
		// None of this is ours, and nobody asked us to tidy it up.
		p.keep = size
		if size > 0 {
			p.note = fmt.Sprintf("the file already held %d bytes, which stay at its beginning", size)
		}
		return p, nil
	}
	elsewhere := was.Path != markPath(f.path) // perhaps the file was moved there too
	switch {
	case size == 0:
		if was.Size > 0 && !elsewhere && !f.rotatedAs(was) {
			p.note = fmt.Sprintf("the file with the %d bytes written so far is gone, or was emptied; a new one is begun", was.Size)
		}
		return p, nil
	case size >= was.Size && (was.Size > 0 || !elsewhere): // of an empty file no other can be told
		same, err := was.endsIn(f.file)
		if err != nil {
			return p, err
		}
		if same {
			p.keep, p.known = was.Size, true
		}
	case !elsewhere: // another sink's file may well begin with the same event
		same, err := was.begins(f.file, size)
		if err != nil {
			return p, err
		}
		if same {
			p.keep, p.known = size, true
			p.note = fmt.Sprintf("the file has lost %d of its %d bytes; it goes on after the %d that are left", was.Size-size, was.Size, size)
			return p, nil
		}
	}
	switch {
	case p.known:
	case elsewhere:
		p.note = fmt.Sprintf("the sink wrote to %s until now, and the file here is another one; a new one is begun", was.Path)
	default:
		p.note = fmt.Sprintf("the file is not the one with the %d bytes written so far; a new one is begun", was.Size)
	}
	// A new file may be one that a Deliver began before it crashed.
	var err error
	p.foreign, err = match(ctx, f.file, p.keep, size, next)
	return p, err
}

// match compares the file from byte from on with the lines that the log writes
// next, and returns where the first line begins that is none of them: size, if
// all bytes begin those lines. Only the last one may then be incomplete; an
// incomplete line with more behind it is somebody else's from its beginning,
// because a part of a line alone proves nothing.
//
// It reads no further than the first difference, and keeps no line.
func match(ctx context.Context, file io.ReaderAt, from, size int64, next iter.Seq2[[]byte, error]) (int64, error) {
	if from == size {
		return size, nil
	}
	r := bufio.NewReaderSize(io.NewSectionReader(file, from, size-from), 64<<10)
	for line, err := range next {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return 0, err
		}
		left := size - from
		same, err := hasPrefix(r, line[:min(int64(len(line)), left)])
		switch {
		case err != nil:
			return 0, err
		case !same:
			return from, nil
		case left <= int64(len(line)):
			return size, nil
		}
		if c, err := r.ReadByte(); err != nil {
			return 0, err
		} else if c != '\n' {
			return from, nil
		}
		from += int64(len(line)) + 1
		if from == size {
			return size, nil
		}
	}
	return from, nil
}

// hasPrefix reads len(want) bytes of r, or fewer when they differ from want.
func hasPrefix(r *bufio.Reader, want []byte) (bool, error) {
	for len(want) > 0 {
		got, err := r.Peek(min(len(want), r.Size()))
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // somebody has cut the file while we read
		}
		if err != nil {
			return false, err
		}
		if !bytes.Equal(got, want[:len(got)]) {
			return false, nil
		}
		want = want[len(got):]
		r.Discard(len(got))
	}
	return true, nil
}

// cutRenamed cuts uncommitted lines off a file that was renamed with them: they will
// be written to the new file. So an operator may rotate a file whose disk is full, and
// logrotate may come when syncd was killed.
func (f *File) cutRenamed(ctx context.Context, was *fileMark, next iter.Seq2[[]byte, error]) error {
	file := f.renamed(was)
	if file == nil {
		return nil
	}
	if file != f.file {
		defer file.Close()
	}
	info, err := file.Stat()
	if err != nil || info.Size() <= was.Size {
		return err
	}
	if same, err := was.endsIn(file); err != nil || !same {
		return err
	}
	foreign, err := match(ctx, file, was.Size, info.Size(), next)
	if err != nil || foreign < info.Size() {
		return err // with somebody else's bytes at its end, it is theirs now
	}
	return f.truncate(file, was.Size)
}

// renamed returns the file of the checkpoint, where the path does not lead to it any
// more: the one that we hold, or else one of its directory that has its inode, which
// the caller closes; nil: there is none, or it is in use.
func (f *File) renamed(was *fileMark) *os.File {
	if f.file != nil {
		if _, same := f.look(); same {
			return nil
		}
		return f.file
	}
	if info, err := os.Stat(f.path); err == nil && inode(info) == was.Inode {
		return nil
	}
	path, err := resolve(was.Path)
	if err != nil {
		return nil
	}
	dir := filepath.Dir(path)
	entries, _ := os.ReadDir(dir) // nothing of a directory that we may not list can be found
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || inode(info) != was.Inode || info.Size() <= was.Size {
			continue
		}
		if file, err := openRegular(filepath.Join(dir, e.Name()), 0, 0); err == nil {
			return file
		}
	}
	return nil
}

func inode(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}

// cut takes off what lies behind the bytes to keep: it begins the next lines,
// or has been moved aside and synced there.
func (f *File) cut(p plan) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	switch {
	case size == p.keep:
		return nil
	case size < p.keep, p.foreign == p.size && size != p.size:
		return f.disturbed(size, p.size) // since we compared it
	}
	return f.truncate(f.file, p.keep)
}

// truncate cuts a file durably. A crash before the truncation is on the disk
// brings the cut bytes back, and the next Resume takes the same decision.
func (f *File) truncate(file *os.File, size int64) error {
	if err := f.steps.do("truncate", func() error { return file.Truncate(size) }); err != nil {
		return err
	}
	return f.steps.do("sync", file.Sync)
}

// endLine ends an incomplete last line, which can only be somebody else's or
// one that somebody has cut, so that our next line is one of its own. It
// returns the new length. After a crash the file is longer by that newline and
// has no incomplete line.
func (f *File) endLine(size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	var last [1]byte
	if _, err := f.file.ReadAt(last[:], size-1); err != nil {
		return 0, err
	}
	if last[0] == '\n' {
		return size, nil
	}
	if _, err := (*fileWriter)(f).Write([]byte{'\n'}); err != nil {
		return 0, err
	}
	return size + 1, f.steps.do("sync", f.file.Sync)
}

// moveAside brings the bytes from p.foreign on to a safe place and returns its
// name. A file that is somebody else's from its first byte is renamed: whoever
// has it open goes on writing to it. Otherwise the bytes are copied; cut then
// takes them off the file.
func (f *File) moveAside(p plan, info fs.FileInfo) (string, error) {
	// Named by the time of the last change, an orphan that a crash has left
	// incomplete is found again by the next Resume, whatever the clock says.
	name := f.file.Name() + ".orphan-" + info.ModTime().UTC().Format("20060102T150405.000000000Z")
	if p.foreign == 0 {
		return f.renameAside(name)
	}
	return f.copyAside(name, p.foreign, info.Mode().Perm())
}

// renameAside renames the whole file and begins a new one.
//
// A crash before the rename is on the disk changes nothing; one after it leaves
// no file, or an empty one, which is what a checkpoint may find.
func (f *File) renameAside(name string) (string, error) {
	name, err := f.steps.rename(f.file.Name(), candidates(name))
	if err != nil {
		return "", err
	}
	// Opening the new file syncs the directory, and with it both names.
	info, err := f.open()
	if err == nil && info.Size() != 0 {
		err = f.disturbed(info.Size(), 0)
	}
	return name, err
}

// candidates are the names to try for an orphan.
func candidates(name string) []string {
	names := []string{name}
	for i := 2; i < 10; i++ {
		names = append(names, fmt.Sprintf("%s-%d", name, i))
	}
	return names
}

// copyAside copies the file from byte from on to an orphan.
//
// A crash before the truncation that follows leaves the orphan, whole or in
// part, and the file as it was. The next Resume goes on with that orphan, so
// that nothing is in two.
func (f *File) copyAside(name string, from int64, mode fs.FileMode) (string, error) {
	for _, candidate := range candidates(name) {
		ok, err := f.copyTo(candidate, from, mode)
		if err != nil {
			return "", err
		}
		if ok {
			return candidate, f.steps.syncDir(filepath.Dir(candidate))
		}
	}
	return "", fmt.Errorf("%s: %w", name, fs.ErrExist)
}

// copyTo completes the orphan with this name, unless it exists and holds
// something else.
func (f *File) copyTo(name string, from int64, mode fs.FileMode) (bool, error) {
	var orphan *os.File
	err := f.steps.do("create", func() (err error) {
		orphan, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, mode)
		return err
	})
	defer orphan.Close()
	if err != nil {
		return false, err
	}
	same, n, err := isPrefix(orphan, io.NewSectionReader(f.file, from, math.MaxInt64-from))
	if err != nil || !same {
		return false, err
	}
	// Whoever wrote these bytes may be writing still: look again until nothing
	// has come during the sync.
	for {
		var copied int64
		err := f.steps.do("write", func() (err error) {
			copied, err = io.Copy(orphan, io.NewSectionReader(f.file, from+n, math.MaxInt64-from-n))
			return err
		})
		if err != nil {
			return false, err
		}
		if err := f.steps.do("sync", orphan.Sync); err != nil {
			return false, err
		}
		if n += copied; copied == 0 {
			return true, nil
		}
	}
}

// isPrefix reports whether all of a is how b begins, and the length of a.
func isPrefix(a, b io.Reader) (same bool, n int64, err error) {
	var have, want [32 << 10]byte
	for {
		k, err := io.ReadFull(a, have[:])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, 0, err
		}
		if k == 0 {
			return true, n, nil
		}
		m, err := io.ReadFull(b, want[:k])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, 0, err
		}
		if !bytes.Equal(have[:k], want[:m]) {
			return false, 0, nil
		}
		n += int64(k)
	}
}
