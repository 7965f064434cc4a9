package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"syncd/internal/sandbox/kit"
)

// pageHead is everything of an EventsResult but its events. Pointers to raw values tell null from absent.
type pageHead struct {
	Next            *json.RawMessage `json:"next,omitempty"`
	NewestEventTime *json.RawMessage `json:"newestEventTime,omitempty"`
	OldestEventTime *json.RawMessage `json:"oldestEventTime,omitempty"`
	TotalEvents     int              `json:"totalEvents"`
}

// serveEvents answers GET /api/v1/seller/events: the feed from the oldest event, or from `next`.
func serveEvents(c *call) answer {
	var next int64
	given := c.query.Get("next") != ""
	if given {
		var err error
		if next, err = strconv.ParseInt(c.query.Get("next"), 10, 64); err != nil {
			return c.sandbox.chatError(http.StatusBadRequest, typeJSON, "Invalid number")
		}
		// 0 is the documented case; that negative values fare alike is a guess.
		if next <= 0 {
			return c.sandbox.chatError(http.StatusBadRequest, typeJSON, `Invalid value for "next"`)
		}
	}
	c.world.lock(c.now)
	page := c.world.chat.page(next, given, c.quirks)
	c.world.mu.Unlock()

	head := pageHead{TotalEvents: len(page)}
	if len(page) == 0 {
		head.Next = emptyNext(c.quirks.EmptyNext, next)
		if !c.quirks.EmptyTimesAbsent {
			head.NewestEventTime, head.OldestEventTime = raw("null"), raw("null")
		}
	} else {
		oldest, newest := page[0].ms, page[len(page)-1].ms
		head.Next = raw(strconv.FormatInt(newest, 10))
		head.NewestEventTime, head.OldestEventTime = rawTime(newest), rawTime(oldest)
	}
	items := make([][]byte, len(page))
	for i, e := range page {
		items[i] = e.render
	}
	open := append([]byte(`{"result":`), kit.Render(head)...)
	open = append(open[:len(open)-1], `,"events":[`...) // the events are a field of the same object
	return answer{Status: http.StatusOK, ContentType: typeJSON, Body: kit.List(open, items, []byte(`]},"errors":null}`))}
}

// page returns a copy: the feed moves on as soon as the world is unlocked.
func (c *chatWorld) page(next int64, given bool, q Quirks) []*event {
	if q.RepeatPage && given {
		end := c.firstAfter(next, false)
		return slices.Clone(c.feed[max(0, end-q.pageSize()):end])
	}
	return slices.Clone(c.window(next, q.InclusiveNext, q.pageSize()))
}

func emptyNext(form EmptyNext, next int64) *json.RawMessage {
	switch form {
	case EmptyNextNull:
		return raw("null")
	case EmptyNextAbsent:
		return nil
	case EmptyNextZero:
		return raw("0")
	case EmptyNextOlder:
		return raw(strconv.FormatInt(max(1, next-time.Hour.Milliseconds()), 10))
	}
	return raw(strconv.FormatInt(next, 10))
}

func raw(text string) *json.RawMessage {
	m := json.RawMessage(text)
	return &m
}

func rawTime(ms int64) *json.RawMessage {
	return raw(time.UnixMilli(ms).UTC().Format(`"` + time.RFC3339 + `"`))
}

// wireChat is schema Chat without what was removed in 2026 (clientID, goodCard.statusID, goodCard.date).
type wireChat struct {
	ChatID      string           `json:"chatID"`
	ReplySign   string           `json:"replySign"`
	ClientName  string           `json:"clientName"`
	GoodCard    *wireListing     `json:"goodCard"`
	LastMessage *wireLastMessage `json:"lastMessage,omitempty"`
}

type wireLastMessage struct {
	Text         string `json:"text"`
	AddTimestamp int64  `json:"addTimestamp"`
}

// serveChats answers GET /api/v1/seller/chats: the whole list, whatever the parameters.
func serveChats(c *call) answer {
	c.world.lock(c.now)
	chats := c.world.chat.listed()
	out := make([]wireChat, len(chats))
	for i, n := range chats {
		out[i] = n.wire()
	}
	if c.quirks.ChatsUnordered {
		c.world.chat.shuffle.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	c.world.mu.Unlock()
	return kit.JSON(http.StatusOK, typeJSON, struct {
		Result []wireChat `json:"result"`
		Errors []string   `json:"errors"`
	}{Result: out})
}

func (n *chat) wire() wireChat {
	out := wireChat{ChatID: n.id, ReplySign: n.sign, ClientName: n.client, GoodCard: n.card()}
	if n.bare {
		out.GoodCard = &wireListing{Rid: n.rid}
	}
	if !n.silent {
		out.LastMessage = &wireLastMessage{Text: n.last.text, AddTimestamp: n.last.ms}
	}
	return out
}

// Limits of POST /api/v1/seller/message.
const (
	maxReplySign  = 255
	maxMessage    = 1000
	maxAttachment = 5 << 20
	maxTotal      = 30 << 20
	// maxMessageBody leaves room for the parts' headers.
	maxMessageBody = maxTotal + 1<<20
)

// upload is one file of a message.
type upload struct {
	name, contentType string
	data              []byte
}

// serveMessage answers POST /api/v1/seller/message: the seller's message becomes an event of the feed. There is no
// idempotency key, and the answer names no event.
func serveMessage(c *call) answer {
	bad := func(text string) answer { return c.sandbox.chatError(http.StatusBadRequest, typeProblem, text) }
	kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return bad("request Content-Type isn't multipart/form-data")
	}
	c.r.Body = http.MaxBytesReader(nil, c.r.Body, maxMessageBody)
	fields, files, refused := readMessage(c.r)
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(refused, &tooBig):
		return c.sandbox.chatError(http.StatusRequestEntityTooLarge, typeProblem, "Request Entity Too Large")
	case refused != nil:
		return bad(refused.Error())
	}
	sign, text := fields["replySign"], fields["message"]
	if len(sign) > maxReplySign {
		return bad("Invalid signature")
	}
	if utf8.RuneCountInString(text) > maxMessage || text == "" && len(files) == 0 {
		return bad(`Invalid value for "message"`)
	}

	c.world.lock(c.now)
	chatID, known := c.world.chat.reply(sign, text, files, c.now)
	c.world.mu.Unlock()
	if !known {
		return bad("Invalid signature")
	}
	type result struct {
		AddTime int64  `json:"addTime"`
		ChatID  string `json:"chatID"`
	}
	return kit.JSON(http.StatusOK, typeJSON, struct {
		Result result   `json:"result"`
		Errors []string `json:"errors"`
	}{result{c.now.UnixMilli(), chatID}, []string{}})
}

// readMessage reads the form. An error's text is the detail of the 400.
func readMessage(r *http.Request) (map[string]string, []upload, error) {
	form, err := r.MultipartReader()
	if err != nil {
		return nil, nil, err
	}
	fields := make(map[string]string)
	var files []upload
	for total := 0; ; {
		part, err := form.NextPart()
		if err == io.EOF {
			return fields, files, nil
		}
		if err != nil {
			return nil, nil, err
		}
		data, err := io.ReadAll(part)
		if err != nil {
			return nil, nil, err
		}
		if part.FormName() != "file" {
			fields[part.FormName()] = string(data)
			continue
		}
		total += len(data)
		f := upload{name: part.FileName(), contentType: http.DetectContentType(data), data: data}
		prefix := fmt.Sprintf("%011X", len(files)+0x4A9F2544E29) // looks like the examples' ids
		switch {
		case len(data) > maxAttachment:
			return nil, nil, fmt.Errorf("%s: attachment too big. Max size: 5MiB", prefix)
		case total > maxTotal:
			return nil, nil, fmt.Errorf("%s: attachments too big. Max total size: 30MiB", prefix)
		case !strings.HasPrefix(f.contentType, "image/jpeg") && f.contentType != "image/png" && f.contentType != "application/pdf":
			return nil, nil, fmt.Errorf("%s: %q has unsupported mime type", prefix, f.name)
		}
		files = append(files, f)
	}
}

// reply appends the seller's message to the chat of a signature.
func (c *chatWorld) reply(sign, text string, files []upload, now time.Time) (chatID string, known bool) {
	in := c.bySign[sign]
	if in == nil {
		return "", false
	}
	wire := wireEvent{EventID: kit.UUID(c.byHand), Sender: "seller", Source: "seller-public-api", Message: &wireMessage{Text: text}}
	var a wireAttachments
	uploaded := make(map[string]download)
	for _, f := range files {
		var id string
		if f.contentType == "application/pdf" {
			file := newFile(c.byHand, now, f.name, f.contentType, len(f.data))
			a.Files, id = append(a.Files, file), file.DownloadID
		} else {
			image := newImage(c.byHand, now)
			a.Images, id = append(a.Images, image), image.DownloadID
		}
		if id != "" {
			uploaded[id] = download{contentType: f.contentType, ms: now.UnixMilli(), data: f.data}
		}
	}
	if len(files) > 0 {
		wire.Message.attach(a)
	}
	c.appear(c.add(in, wire, now.UnixMilli()))
	maps.Copy(c.downloads, uploaded)
	return in.id, true
}
