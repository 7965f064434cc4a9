package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// duration is 0 or more.
type duration time.Duration

func (duration) about() about {
	return about{
		want: "a duration such as 200ms, 15s, 1h30m or 7d",
		tags: "!!str !!int !!float",
		schema: schema{"anyOf": []schema{
			{"type": "string", "pattern": `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+$`},
			{"enum": []any{0, "0"}},
		}},
	}
}

func (d *duration) parse(s string) string {
	v, err := ParseDuration(s)
	*d = duration(v)
	switch {
	case err != nil:
		return err.Error()
	case v < 0:
		return s + " is negative"
	}
	return ""
}

// positiveDuration is more than 0.
type positiveDuration time.Duration

func (positiveDuration) about() about {
	a := duration(0).about()
	a.want = "a duration above 0 such as 200ms, 15s, 1h30m or 7d"
	a.schema = schema{"type": "string", "pattern": `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d))+$`}
	return a
}

func (d *positiveDuration) parse(s string) string {
	v, err := ParseDuration(s)
	*d = positiveDuration(v)
	switch {
	case err != nil:
		return err.Error()
	case v <= 0:
		return s + " is out of range"
	}
	return ""
}

var daysRE = regexp.MustCompile(`([0-9]*\.?[0-9]*)d`)

// ParseDuration reads a duration as the configuration and the command line have it: as Go writes it, plus d for days of 24
// hours, as in 7d and 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(s, 64); err == nil && strings.Trim(s, "0") != "" {
		return 0, fmt.Errorf("%s has no unit", quoted(s))
	}
	// A day is 24 hours, written so that Go's own parser still checks syntax and range.
	var bad bool
	hours := daysRE.ReplaceAllStringFunc(s, func(days string) string {
		n, err := strconv.ParseFloat(strings.TrimSuffix(days, "d"), 64)
		bad = bad || err != nil
		return strconv.FormatFloat(n*24, 'f', -1, 64) + "h"
	})
	d, err := time.ParseDuration(hours)
	if err != nil || bad {
		return 0, fmt.Errorf("%s is not a duration", quoted(s))
	}
	return d, nil
}

// formatDuration writes a duration as people do in the file.
func formatDuration(d time.Duration) string {
	if day := 24 * time.Hour; d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size counts bytes.
type size int64

var sizeRE = regexp.MustCompile(`^([0-9]+)(B|KiB|MiB|GiB|TiB)$`)

func (size) about() about {
	return about{
		want:   "a size such as 512B, 64KiB, 100MiB or 10GiB",
		tags:   "!!str !!int !!float",
		schema: schema{"type": "string", "pattern": sizeRE.String()},
	}
}

func (b *size) parse(s string) string {
	m := sizeRE.FindStringSubmatch(s)
	if m == nil {
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			return quoted(s) + " has no unit"
		}
		return quoted(s) + " is not a size"
	}
	shift := map[string]int{"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[2]]
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n == 0 || n > math.MaxInt64>>shift {
		return quoted(s) + " is out of range"
	}
	*b = size(n << shift)
	return ""
}
