package yandexmarket

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// pageAnswer is a page of a list. more is what the result has beside it: `,"name":value`.
func pageAnswer[T any](field string, part []T, render func(T) []byte, next, more string) answer {
	items := make([][]byte, len(part))
	for i, entry := range part {
		items[i] = render(entry)
	}
	head := fmt.Sprintf(`{"status":"OK","result":{%q:[`, field)
	tail := fmt.Sprintf(`],"paging":%s%s}}`, kit.Render(paging{next}), more)
	return answer{Status: http.StatusOK, ContentType: kit.TypeJSON, Body: kit.List([]byte(head), items, []byte(tail))}
}

// filters tells scans apart by what was asked for. Times that were left out are not in it.
func filters(in any) string { return string(kit.Render(in)) }

// sourceType refuses values of that parameter that there are not.
func (c *call) sourceType() *answer {
	if s := c.query.Get("sourceType"); s != "" && s != "SELLER" && s != "ADVERTISER" {
		return refuse(http.StatusBadRequest, badParameter("sourceType", s))
	}
	return nil
}

// listText says what is wrong with an optional list: it is not empty, has no value twice, and at most so many.
func listText[T comparable](name string, list []T, most int) string {
	switch {
	case list == nil:
		return ""
	case len(list) == 0 || len(list) > most:
		return fmt.Sprintf("%s size must be between 1 and %d", name, most)
	}
	seen := make(map[T]bool, len(list))
	for _, v := range list {
		if seen[v] {
			return name + " must contain only unique elements"
		}
		seen[v] = true
	}
	return ""
}

// enumText says what is wrong with an optional value of a few.
func enumText(name string, value *string, of ...string) string {
	if value != nil && !slices.Contains(of, *value) {
		return badParameter(name, *value)
	}
	return ""
}

// dateTime reads a date-time.
func dateTime(name, value string) (time.Time, string) {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, badParameter(name, value)
	}
	return at, ""
}

var wholeDate = regexp.MustCompile(`^\d{4}-\d\d-\d\d$`)

// dateOf reads a date: the beginning of that day.
func dateOf(name, value string, zone *time.Location) (time.Time, string) {
	at, err := time.ParseInLocation(time.DateOnly, value, zone)
	if err != nil || !wholeDate.MatchString(value) {
		return time.Time{}, badParameter(name, value)
	}
	return at, ""
}

// day is the beginning of the day that a moment is in, in its zone.
func day(at time.Time) time.Time {
	return time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, at.Location())
}

// dayZone is where days begin at midnight.
func dayZone(utc bool) *time.Location {
	if utc {
		return time.UTC
	}
	return moscow
}

// addMonths adds months as Java does: of a day that the month has not, it takes the last one.
func addMonths(at time.Time, months int) time.Time {
	first := time.Date(at.Year(), at.Month()+time.Month(months), 1, at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), at.Location())
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(at.Day(), last)-1)
}

// trimmed is how the Market takes texts and SKUs: without spaces around them.
func trimmed(text string) string { return strings.TrimSpace(text) }
