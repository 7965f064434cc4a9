package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Rotate says when a File gives its file another name and begins a new one. The
// zero value is never.
//
// events.ndjson becomes events-<first sequence>.ndjson in the same directory,
// the first sequence being that of the first event in it, in 20 digits. Where
// that name is taken, "-2" and so on follow the digits: nothing is overwritten.
type Rotate struct {
	// Size in bytes that ends a file; it ends with the event that reaches it. 0:
	// no limit.
	Size int64
	// Every is the age that ends a file, counted from its first event. 0: no limit.
	Every time.Duration
	// Keep is how many rotated files are kept; older ones are deleted. 0: all.
	Keep int
	// Compress rotated files with zstd, in the background.
	Compress bool
}

func (r Rotate) enabled() bool { return r.Size > 0 || r.Every > 0 }

const (
	// rotateRetry is the pause after a rotation or a compression that failed.
	rotateRetry = time.Minute
	// clockLook bounds the time between two looks at the clock, which may jump.
	clockLook = time.Hour
	// workLook is the time between two looks at what goes on in the background.
	workLook = time.Second
)

// Tend implements Tender: it notices that the file was taken away, rotates it,
// and looks after the rotated ones.
//
// A rotation that fails does not keep the sink from writing: the file grows
// beyond its limit, and the rotation is tried again.
func (f *File) Tend(ctx context.Context) (Tended, error) {
	if !f.ready {
		return Tended{}, f.notReady()
	}
	if ctx.Err() != nil {
		return Tended{}, context.Cause(ctx)
	}
	f.ready = false // as in Deliver
	size, err := f.follow()
	if err == nil && size != f.mark.Size {
		err = f.beginAnew()
	}
	if err != nil {
		f.ready = errors.Is(err, ErrTendFirst)
		return Tended{}, fmt.Errorf("look after %s: %w", f.path, err)
	}
	var t Tended
	if f.rotate.enabled() {
		now := time.Now()
		rotated, err := f.rotateIfDue(now, &t)
		if err != nil {
			return t, fmt.Errorf("rotate %s: %w", f.path, err)
		}
		if rotated {
			// The rotated file is left alone until the commit that knows it: so
			// Resume recognises it after a crash.
			t.Next = now
		} else {
			f.lookAfterRotated(now, &t)
		}
	}
	f.ready = true
	return t, nil
}

// beginAnew takes the mark of an empty file.
func (f *File) beginAnew() error {
	mark, err := f.readMark(0)
	mark.Last = f.mark.Last
	f.mark = mark
	return err
}

// rotateIfDue rotates the file if it is due. An error means that the file has to
// be resumed.
func (f *File) rotateIfDue(now time.Time, t *Tended) (rotated bool, err error) {
	if ms := now.UnixMilli(); f.mark.Begun > ms {
		f.mark.Begun = ms // the clock was wrong, then or now: the age counts from here
	}
	if f.due(now) {
		if !now.Before(f.next) {
			rotated = f.retire(now, t)
		}
		if !rotated {
			t.soonest(f.next)
			return false, nil // and any number of bytes may come
		}
		if err := f.takePlace(); err != nil {
			return true, err
		}
	}
	if f.rotate.Size > 0 {
		t.Room = max(f.rotate.Size-f.mark.Size, 1)
	}
	if f.mark.Begun != 0 && f.rotate.Every > 0 {
		t.soonest(now.Add(min(f.rotate.Every-f.age(now), clockLook)))
	}
	return rotated, nil
}

func (f *File) age(now time.Time) time.Duration { return now.Sub(time.UnixMilli(f.mark.Begun)) }

// due reports whether the file has reached a limit. One without an event of ours
// has no name to get, and stays.
func (f *File) due(now time.Time) bool {
	r := f.rotate
	return f.mark.Begun != 0 && (r.Size > 0 && f.mark.Size >= r.Size || r.Every > 0 && f.age(now) >= r.Every)
}

// retire gives the file, all of which is committed, its rotated name. When it
// fails nothing has changed, or the rename has worked all the same and is found
// later like one that somebody else has made.
//
// A crash before the rename is on the disk leaves the file and the checkpoint as
// they were.
func (f *File) retire(now time.Time, t *Tended) bool {
	name := f.file.Name()
	var err error
	if f.sync == SyncNone { // so that only the file that is being written can lose lines
		err = f.steps.do("sync", f.file.Sync)
	}
	if err == nil {
		_, err = f.steps.rename(name, f.rotatedNames(&f.mark))
	}
	if err != nil {
		f.next = now.Add(rotateRetry)
		t.tell(&f.told, fmt.Errorf("cannot rotate %s, it grows on: %w", name, err))
		return false
	}
	f.told = ""
	return true
}

// takePlace begins the file that follows a rotated one.
//
// A crash in here, or before the commit of the new Checkpoint, leaves a checkpoint
// that describes the rotated file, and no file, or an empty one: Resume begins it.
func (f *File) takePlace() error {
	info, err := f.open() // which syncs the directory, and with it both names
	if err == nil && info.Size() != 0 {
		err = f.disturbed(info.Size(), 0)
	}
	if err == nil {
		err = f.beginAnew()
	}
	f.attic.due = true // also beside an error: the rename is done
	return err
}

// rotatedNames are the names for the file of a mark, to be tried in this order.
func (f *File) rotatedNames(m *fileMark) []string {
	dir, stem := rotatedPlace(f.file.Name())
	return rotatedFile{first: m.First, n: 1}.names(dir, stem, lineExt)
}

// rotatedAs reports whether a rotated file is the one of a mark: a crash has come
// between its rename and the commit that forgets it.
func (f *File) rotatedAs(was *fileMark) bool {
	if was.Begun == 0 {
		return false
	}
	for _, name := range f.rotatedNames(was) {
		file, info, err := openRotated(name)
		if err != nil {
			continue
		}
		same := false
		if info.Size() >= was.Size {
			same, _ = was.endsIn(file)
		}
		file.Close()
		if same {
			return true
		}
	}
	return false
}

// soonest makes t.Next no later than at.
func (t *Tended) soonest(at time.Time) {
	if t.Next.IsZero() || at.Before(t.Next) {
		t.Next = at
	}
}

// tell adds a note for a failure, unless it was told the last time.
func (t *Tended) tell(told *string, err error) {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if text != *told {
		*told = text
		t.Notes = append(t.Notes, text)
	}
}
