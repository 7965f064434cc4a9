package event_test

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"syncd/internal/event"
)

func TestEscape(t *testing.T) {
	for id, want := range map[string]string{
		"":                     "",
		"2ncBtX4B9I0UHoornoqG": "2ncBtX4B9I0UHoornoqG",
		"1:2_3-4":              "1:2_3-4",
		"a.b":                  "a%2Eb",
		"a/b":                  "a%2Fb",
		"100%":                 "100%25",
		"a b\n\"\\":            "a%20b%0A%22%5C",
		"ы":                    "%D1%8B",
		"\xff":                 "%FF",
	} {
		if got := event.Escape(id); got != want {
			t.Errorf("%q is escaped to %q, want %q", id, got, want)
		}
	}
}

func TestIDs(t *testing.T) {
	item := event.Path("chat.1", "event/2")
	f := event.Fingerprint{0, 1, 2, 3, 4, 5, 6, 0xff}
	for got, want := range map[string]string{
		item: "chat%2E1/event%2F2",
		event.ItemEventID("shop-a", "chat_events", item):           "shop-a/chat_events/chat%2E1/event%2F2",
		event.VersionEventID("shop-a", "chat_events", item, 12, f): "shop-a/chat_events/chat%2E1/event%2F2/12-00010203040506ff",
		event.Source("wildberries", "shop-a", "questions"):         "syncd://wildberries/shop-a/questions",
		event.SchemaChangedID("shop-a", "claims", 2, "a[].b"):      "shop-a/claims/syncd:schema_changed/2-dd76e37d53ae54e1",
		event.SchemaSubject("claims"):                              "schema/claims",
		event.PartitionKey("shop-a", "chat/1"):                     "shop-a/chat/1",
		f.String():                                                 "00010203040506ff",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

var alphabet = regexp.MustCompile(`^[A-Za-z0-9_:%-]*$`)

// FuzzPath checks that ids stay in their alphabet and that no two items share
// one: an id can be taken apart into the parts that it was made of.
func FuzzPath(f *testing.F) {
	f.Add("a", "b")
	f.Add("a/b", "")
	f.Add("%2F", ".\x00é\xff+")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, parts := range [][]string{{a}, {a, b}} {
			path := event.Path(parts...)
			var back []string
			for escaped := range strings.SplitSeq(path, "/") {
				if !alphabet.MatchString(escaped) {
					t.Errorf("%q has the path %q", parts, path)
				}
				part, err := url.PathUnescape(escaped)
				if err != nil {
					t.Error(err)
				}
				back = append(back, part)
			}
			if !slices.Equal(back, parts) {
				t.Errorf("%q has the path %q, which is that of %q", parts, path, back)
			}
		}
	})
}
