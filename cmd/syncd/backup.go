package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/state"
)

func newBackup(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write a copy of the state file that can be restored",
		Long: `Backup writes a copy of the state file, as it is now, to FILE, which must not exist yet.
A running daemon goes on meanwhile; where none runs the closed file is copied.

To restore, stop syncd and put the copy in the place of state.path. It knows that it is
a copy: it starts with empty budgets, numbers its events behind all that the original
can have used, and cuts no sink's file. What the original has emitted since the backup
is emitted again, with the same ids.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("expected FILE")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := untilSignal(cmd.Context(), syscall.SIGHUP)
			defer stop()
			n, err := writeWhole(ctx, args[0], func(w io.Writer) error {
				return e.either(func(d *daemon) error {
					return d.download(ctx, "/api/v1/state/backup", nil, w)
				}, func(cfg *config.Config) error { return backUpClosed(cfg.State.Path, w) })
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.stdout, "%s: %d bytes\n", args[0], n)
			return err
		},
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	return cmd
}

// backUpClosed copies the state file that no daemon has open.
func backUpClosed(path string, w io.Writer) error {
	db, err := state.Open(state.Config{Path: path})
	if err != nil {
		return err
	}
	_, err = db.Backup(w)
	return errors.Join(err, db.Close())
}

// writeWhole makes a file that does not exist yet, whole and on the disk, or none at
// all, which is also how the end of ctx leaves it. A crash on the way leaves a file of
// another name behind.
func writeWhole(ctx context.Context, path string, write func(w io.Writer) error) (size int64, err error) {
	there := fmt.Errorf("%s exists already: a backup replaces nothing", path)
	if _, err := os.Lstat(path); err == nil {
		return 0, there
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".partial-*") // mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // it has its own name by then, or never will
	err = write(&goingWriter{f, ctx})
	if err == nil {
		err = f.Sync()
	}
	if cause := context.Cause(ctx); cause != nil { // which is why write has failed, if it has
		err = fmt.Errorf("no backup was made: %w", cause)
	}
	if fi, statErr := f.Stat(); statErr == nil {
		size = fi.Size()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	// A link, unlike a rename, replaces nothing.
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return 0, there
	} else if err != nil { // a file system without links
		if err := os.Rename(f.Name(), path); err != nil {
			return 0, err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	return size, errors.Join(d.Sync(), d.Close())
}

// goingWriter is a writer that fails once ctx has ended.
type goingWriter struct {
	io.Writer
	ctx context.Context
}

func (w *goingWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}
