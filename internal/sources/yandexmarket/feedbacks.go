package yandexmarket

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

var feedbacks = &dated{
	name: "reviews", kind: "goods_feedback", subject: "feedback", list: getFeedbacks, items: entries{"feedbacks", decodeFeedback},
	children: children{name: "comments", kind: "goods_feedback_comment", method: getComments, member: "comments", parent: "feedbackId"},
	// Six months at most, of which the shortest have 181 days. The window which ends now
	// leaves room for a clock that is wrong.
	span: 180 * day, first: 150 * day,
	// Both ends are exclusive.
	step: time.Second, slack: time.Hour,
	filter:    feedbacksFilter,
	shown:     184 * day, // by the sweep, which takes the marketplace's own six months
	published: true,
	byID:      "feedbackIds",
	shows:     showsComments,
	silent: func(found json.RawMessage) bool {
		return string(found) == string(noComments) || string(found) == string(noCommentsYet)
	},
}

// goodsFeedbacks reads reviews and their comments.
//
// Their list is in the order of publication, which moderation delays by days, and its
// dates are those of creation or of publication. So News reads whole days back each
// time, and the end of the list where it is known: see latecomers. Nothing says that a
// review was edited, but that it needs a reaction again, which is what the sweep asks for;
// it shows reviews of any age that were published late as well, and by their absence those
// that were answered. What no sign tells is read by Full.
func (c *Client) goodsFeedbacks(ctx context.Context, q sources.Query) (sources.Page, error) {
	if q.Walk == sources.Follow {
		return c.follow(ctx, q, feedbacks)
	}
	return c.readDated(ctx, q, feedbacks)
}

func feedbacksFilter(from, to int64, sweep bool) any {
	var body struct {
		From   *time.Time `json:"dateTimeFrom,omitempty"`
		To     *time.Time `json:"dateTimeTo,omitempty"`
		Status string     `json:"reactionStatus,omitempty"`
	}
	at := func(t int64) *time.Time {
		if t == 0 {
			return nil
		}
		utc := time.Unix(t, 0).UTC()
		return &utc
	}
	body.From, body.To = at(from), at(to)
	if sweep {
		body.Status = "NEED_REACTION"
	}
	return body
}

func decodeFeedback(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "goods_feedback", "feedbackId")
	if err != nil {
		return sources.Item{}, err
	}
	item.ID = []string{item.Kind, item.ID[0]}
	item.Subject = []string{"feedback", item.ID[1]}
	item.Created = listing.Plausible(f.Instant("createdAt"), now)
	return item, nil
}

// commentsShown is what a review tells of its comments: how many answer it directly, and
// whether somebody of the shop has to look at it. Comments on comments show in neither.
type commentsShown struct {
	Comments *int64 `json:"comments,omitempty"`
	Need     bool   `json:"need,omitempty"`
}

var (
	noComments    = json.RawMessage(`{"comments":0}`)
	noCommentsYet = json.RawMessage(`{"comments":0,"need":true}`)
)

func showsComments(_ sources.Query, body json.RawMessage) json.RawMessage {
	f := listing.Object(body)
	shown := commentsShown{Need: string(f["needReaction"]) == "true"}
	statistics := listing.Object(f["statistics"])
	if statistics.Text("commentsCount") != "" {
		n := statistics.Whole("commentsCount")
		shown.Comments = &n
	}
	raw, _ := json.Marshal(shown) // numbers and signs
	return raw
}

// latecomers is the page of the list where a review comes that is published now, however
// old it is: the list is in the order of publication, and its page tokens may be kept
// (OpenAPI document). In an ascending list that is the last page, and those that come
// behind it; in a descending one it is the first.
type latecomers struct {
	From   int64  `json:"from"`             // the filter, which goes with the token
	Token  string `json:"token,omitempty"`  // of the page; empty: the first
	Newest int64  `json:"newest,omitempty"` // creation of the newest item that it had
	Top    bool   `json:"top,omitempty"`    // there are others behind it, which are not ascending
}

func (l *latecomers) sound() bool {
	return l == nil || datable(l.From, l.Newest) && len(l.Token) <= maxToken
}

// expired says whether the time from the filter's begin to now is too long to ask for
// soon, or cannot be.
func (l *latecomers) expired(now int64) bool {
	return l != nil && (now > l.From+seconds(longest) || now < l.From)
}

// trend says by how much more often an entry of a page comes behind an older one than
// behind a younger one. Single ones that were published late do not matter.
func trend(items []sources.Item) (t int) {
	items = items[:min(len(items), getFeedbacks.most)]
	for i, it := range items {
		for _, before := range items[:i] {
			if !it.Created.IsZero() && !before.Created.IsZero() {
				t += it.Created.Compare(before.Created)
			}
		}
	}
	return t
}

// lateFrom returns where latecomers come in a list that was read to its end, a page which
// asked has led to; latest is the creation of that page's newest item.
func lateFrom(from int64, trend int, asked string, latest int64) *latecomers {
	if trend > 0 {
		return &latecomers{From: from, Token: asked, Newest: latest}
	}
	return &latecomers{From: from, Top: asked != ""}
}

// readLate fetches the next page of those where latecomers are. Whatever is wrong with it
// ends the run well: from a wide run of the next day on there is a new one.
func (c *Client) readLate(ctx context.Context, q sources.Query, d *dated, cur *datedCursor, page *sources.Page) error {
	r, late := cur.Run, cur.Late
	asked := r.Token
	l, err := c.page(ctx, q, d.list, 0, d.items, nil, d.filter(late.From, 0, false), asked)
	if err != nil {
		e, ok := errors.AsType[*sources.Error](err)
		if !ok || e.Kind != sources.Rejected && e.Kind != sources.Unreadable && e.Status < http.StatusInternalServerError && !badToken(err) {
			return err
		}
		cur.Late, r.Over = nil, true
		return nil
	}
	r.look(l)
	byCreation(l.Items)
	page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
	end, note := r.careful.after(d.list, l)
	switch latest := newest(l); {
	case note != "" || asked == late.Token && latest < late.Newest-seconds(30*day):
		cur.Late, r.Over = nil, true // the token leads elsewhere
	case end && late.Token != "":
		late.Token, late.Newest, r.Over = asked, latest, true
	case end:
		cur.Late, r.Over = lateFrom(late.From, r.Trend, asked, latest), true
	case asked == "" && (late.Top || r.Trend < 0):
		r.Over = true // new ones come first
	}
	return nil
}
