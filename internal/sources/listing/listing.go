package listing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/jsonlist"
)

// Method is one listing method of an API.
type Method struct {
	// List is where the answer has its items: see jsonlist.List.
	List []string
	// Decode reads one entry. raw is the entry as it was sent, and Decode's to keep.
	// now is our clock or the marketplace's: see Clock.
	Decode func(raw json.RawMessage, now time.Time) (sources.Item, error)
	// Check says what is wrong with an answer as a whole; nil: nothing.
	Check func(l Listing) error
}

// Listing is what one request showed.
type Listing struct {
	Members Fields // what stands around the list, by path: "data.countArchive"
	Items   []sources.Item
	Odd     []sources.Undecodable
	N       int       // entries, odd ones included
	Keys    []uint64  // of the entries in their order, odd ones included: see Key
	Now     time.Time // our clock or theirs: see Clock
	Date    time.Time // theirs; zero if they did not say
	There   bool      // there was a list
	Null    bool      // there was null in the place of it
}

// Key tells entries apart by what names them. It is the same in every process,
// and sums of keys tell sets of entries apart.
func Key(parts ...string) uint64 {
	var b []byte
	for _, s := range parts {
		b = append(strconv.AppendInt(b, int64(len(s)), 10), ' ')
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:])
}

// Read sends one request and takes in its answer entry by entry. An entry that is
// no item does not stop the others. It fills in the Read of r; now is our clock.
func Read(ctx context.Context, c *apiclient.Client, r apiclient.Request, now time.Time, m Method) (Listing, error) {
	l := Listing{}
	r.Read = func(body io.Reader, date time.Time) error {
		l.Now = Clock(now, date)
		answer, err := jsonlist.Read(body, jsonlist.List{
			Path: m.List,
			Each: func(raw []byte) error {
				item, err := m.Decode(raw, l.Now)
				if err != nil {
					l.addOdd(raw, err.Error())
					return nil
				}
				l.N++
				l.Keys = append(l.Keys, Key(item.ID...))
				l.Items = append(l.Items, item)
				return nil
			},
			Odd: l.addOdd,
		})
		l.Members, l.There, l.Null = answer.Members, answer.There, answer.Null
		if err != nil || m.Check == nil {
			return err
		}
		return m.Check(l)
	}
	resp, err := c.Do(ctx, r)
	if err != nil {
		return Listing{}, err
	}
	l.Date = resp.Date
	return l, nil
}

func (l *Listing) addOdd(raw []byte, reason string) {
	l.N++
	l.Keys = append(l.Keys, Key("odd", string(raw)))
	l.Odd = append(l.Odd, sources.Undecodable{Raw: raw, Reason: reason})
}

// Says reports whether text, that of an error say, holds one of words, in any case.
// The words are in lower case.
func Says(text string, words ...string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// IsError tells a member that holds an error from all that says that there is none.
func IsError(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "false", "0", `""`, "[]", "{}":
		return false
	}
	return true
}
