package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// packWindow bounds the memory of a compression: a few times this.
const packWindow = 1 << 20

// pack compresses a rotated file, in these steps: a draft is written, synced and
// compared with the file; it gets its name; that is synced; the file is deleted.
//
// A crash before the draft has its name leaves a draft, which the next pass
// deletes. One after it leaves the file beside the compressed one, which the next
// pass finds to hold the same, and deletes the file, also when it is not to
// compress any more.
func (p *pass) pack(ctx context.Context, r rotatedFile) error {
	path := p.path(r)
	src, _, err := openRotated(path)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := lock(src, syscall.LOCK_SH); err != nil { // nobody may be writing it
		return err
	}
	names := r.names(p.dir, p.stem, packExt)
	for _, name := range names {
		if p.holds(ctx, name, src) == nil {
			return p.replaced(path)
		}
	}
	if !p.compress || ctx.Err() != nil {
		return ctx.Err()
	}
	r.ext = draftExt
	draft := p.path(r)
	if err := p.draft(ctx, draft, src); err != nil {
		// What it takes on the disk is needed for other things.
		return errors.Join(err, p.steps.remove(draft))
	}
	if _, err := p.steps.rename(draft, names); err != nil {
		return err
	}
	return p.replaced(path)
}

// replaced deletes a file whose compressed one is whole and has its name.
func (p *pass) replaced(path string) error {
	if err := p.steps.syncDir(p.dir); err != nil {
		return err
	}
	return p.steps.remove(path)
}

// draft writes src compressed to a file, and sees that it holds the same.
func (p *pass) draft(ctx context.Context, name string, src *os.File) error {
	// A draft that a crash has left, or a link that somebody has put there.
	if err := p.steps.remove(name); err != nil {
		return err
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	var out *os.File
	err = p.steps.do("create", func() (err error) {
		out, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
		return err
	})
	defer out.Close()
	if err != nil {
		return err
	}
	err = p.steps.do("write", func() error { return compress(out, fromStart(ctx, src)) })
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := p.steps.do("sync", out.Sync); err != nil {
		return err
	}
	return p.holds(ctx, name, src)
}

func compress(to io.Writer, from io.Reader) error {
	z, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(packWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	_, err = io.Copy(z, from)
	return errors.Join(err, z.Close())
}

// holds returns nil if a compressed file holds exactly what src holds.
func (p *pass) holds(ctx context.Context, name string, src *os.File) error {
	packed, _, err := openRotated(name)
	if err != nil {
		return err
	}
	defer packed.Close()
	z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(packWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	c := comparer{want: fromStart(ctx, src)}
	if _, err = io.Copy(&c, z); err == nil {
		err = c.end()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

var errOther = errors.New("does not hold what the rotated file holds")

// comparer is a writer that takes only what want yields.
type comparer struct {
	want io.Reader
	buf  []byte
}

func (c *comparer) Write(b []byte) (int, error) {
	c.buf = slices.Grow(c.buf[:0], len(b))[:len(b)]
	if _, err := io.ReadFull(c.want, c.buf); err == io.EOF || err == io.ErrUnexpectedEOF || err == nil && !bytes.Equal(b, c.buf) {
		return 0, errOther
	} else if err != nil {
		return 0, err
	}
	return len(b), nil
}

// end returns nil if want yields no more.
func (c *comparer) end() error {
	var one [1]byte
	switch _, err := io.ReadFull(c.want, one[:]); err {
	case io.EOF:
		return nil
	case nil:
		return errOther
	default:
		return err
	}
}

// fromStart reads a file from its beginning, until ctx ends.
func fromStart(ctx context.Context, file *os.File) io.Reader {
	return &contextReader{ctx, io.NewSectionReader(file, 0, 1<<62)}
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
