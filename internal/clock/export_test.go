package clock

import "time"

// At is a Watch whose clocks the test reads. wall is what the wall clock shows,
// mono how long the machine has run since the Watch began.
type At struct{ *Watch }

// NewAt begins a Watch at a wall time.
func NewAt(cfg Config, wall time.Time) At {
	w := &Watch{log: cfg.Log}
	w.start(reading{wall: wall.Round(0)}, cfg.LastCommit)
	return At{w}
}

// Doubt is Watch.Doubt at a reading.
func (a At) Doubt(wall time.Time, mono time.Duration) string {
	return a.doubtAt(reading{wall.Round(0), mono})
}

// Heard is Watch.Heard at a reading.
func (a At) Heard(wall time.Time, mono time.Duration, date time.Time) {
	a.heardAt(reading{wall.Round(0), mono}, date)
}

// Parting is by how much two readings part.
func Parting(wall1 time.Time, mono1 time.Duration, wall2 time.Time, mono2 time.Duration) time.Duration {
	return parting(reading{wall1.Round(0), mono1}, reading{wall2.Round(0), mono2})
}
