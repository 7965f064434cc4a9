package sources

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// DecodeCursor reads a cursor that a source wrote into dst. Nil leaves dst as it is.
// It comes from a disk: one that cannot be ours, by which a walk would crash, turn in
// circles or ask for what the API refuses, is an error. sound says whether dst can be.
func DecodeCursor(stream string, c Cursor, dst any, sound func() bool) error {
	if c == nil {
		return nil
	}
	err := json.Unmarshal(c, dst)
	if err == nil && !sound() {
		err = errors.New("it holds what syncd never writes")
	}
	if err != nil {
		return fmt.Errorf("cursor of %s: %w", stream, err)
	}
	return nil
}

// Check says why q asks for nothing that a marketplace with these streams has; nil if
// it does not.
func (q Query) Check(marketplace string, streams []Stream) error {
	i := slices.IndexFunc(streams, func(s Stream) bool { return s.Name == q.Stream })
	if i < 0 {
		return fmt.Errorf("%s has no stream %q", marketplace, q.Stream)
	}
	if !slices.Contains(streams[i].Walks, q.Walk) {
		return fmt.Errorf("%s of %s: %w", q.Walk, q.Stream, ErrNoSuchWalk)
	}
	return nil
}

// Times says whether these can be times, in seconds or milliseconds.
func Times(all ...int64) bool {
	return !slices.ContainsFunc(all, func(t int64) bool { return t < 0 || t > 1<<45 })
}

// Counts says whether these can be counts.
func Counts(all ...int) bool {
	return !slices.ContainsFunc(all, func(n int) bool { return n < 0 || n > 1<<30 })
}
