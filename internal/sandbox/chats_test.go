package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

type chat struct{ ChatID, ReplySign, ClientName string }

// chats reads the list as raw items.
func (s *shop) chats() []json.RawMessage {
	s.t.Helper()
	var list struct{ Result []json.RawMessage }
	s.get(chats, &list)
	return list.Result
}

func decodeChat(t *testing.T, raw []byte) chat {
	t.Helper()
	var out chat
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestChatListIsTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 1000})
		var want []json.RawMessage
		for _, n := range s.world.Chats() {
			if decodeChat(t, n.JSON).ChatID != n.ID {
				t.Errorf("chat %s: %s", n.ID, n.JSON)
			}
			want = append(want, n.JSON)
		}
		if got := s.chats(); len(got) < 100 || !equalItems(got, want) {
			t.Errorf("%d chats listed, %d in the world", len(got), len(want))
		}
		if err := s.SetQuirks(sandbox.Quirks{ChatsUnordered: true}); err != nil {
			t.Fatal(err)
		}
		a, b := s.chats(), s.chats()
		if equalItems(a, b) || equalItems(a, want) {
			t.Error("unordered: the same order twice")
		}
		slices.SortFunc(a, func(a, b json.RawMessage) int { return bytes.Compare(a, b) })
		slices.SortFunc(want, func(a, b json.RawMessage) int { return bytes.Compare(a, b) })
		if !equalItems(a, want) {
			t.Error("unordered: other chats")
		}
	})
}

func TestUnlistedChats(t *testing.T) {
	for share, want := range map[float64]string{-1: "all", 1: "none"} {
		s := newShop(t, sandbox.WorldSpec{Events: 500, UnlistedChats: share})
		inFeed := make(map[string]bool)
		for _, e := range s.world.Events() {
			inFeed[e.ChatID] = true
		}
		if n := len(s.world.Chats()); (n == len(inFeed)) != (want == "all") || (n == 0) != (want == "none") {
			t.Errorf("share %v: %d of %d chats listed, want %s", share, n, len(inFeed), want)
		}
	}
}

func TestNewChatIsListedLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 20, ChatsListedAfter: 10 * time.Minute})
		time.Sleep(time.Hour)
		before := len(s.chats())
		e := s.world.AddEvent(sandbox.EventSpec{})
		time.Sleep(10*time.Minute - time.Second)
		s.world.AddEvent(sandbox.EventSpec{ChatID: e.ChatID, Text: "Ау?"})
		if n := len(s.world.Chats()); n != before {
			t.Errorf("%d chats a second before the time, want %d", n, before)
		}
		time.Sleep(time.Second)
		if list := s.world.Chats(); len(list) != before+1 || list[0].ID != e.ChatID || !bytes.Contains(list[0].JSON, []byte("Ау?")) {
			t.Errorf("%d chats at the time, want %d and the new one first", len(list), before+1)
		}
	})
}

func TestReplySignChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		e := s.world.AddEvent(sandbox.EventSpec{})
		sign := func() string { return decodeChat(t, s.world.Chats()[0].JSON).ReplySign }
		say := func(sign string) int {
			time.Sleep(time.Minute)
			return s.serve(s.message(map[string]string{"replySign": sign, "message": "Добрый день"}, nil)).Code
		}
		old := sign()
		if err := s.world.Resign(e.ChatID); err != nil {
			t.Fatal(err)
		}
		if a, b := say(old), say(sign()); old == sign() || a != http.StatusBadRequest || b != http.StatusOK {
			t.Errorf("old sign: %d, new sign: %d", a, b)
		}
		if s.world.Resign("1:nothing") == nil {
			t.Error("no error for an unknown chat")
		}
	})
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 300, ReplySignEvery: time.Minute})
		before := make(map[string]string)
		for _, n := range s.world.Chats() {
			before[n.ID] = decodeChat(t, n.JSON).ReplySign
		}
		time.Sleep(time.Hour)
		changed := 0
		for _, n := range s.world.Chats() {
			if decodeChat(t, n.JSON).ReplySign != before[n.ID] {
				changed++
			}
		}
		if changed < 15 || changed == len(before) {
			t.Errorf("%d of %d signs changed in an hour", changed, len(before))
		}
	})
}

const download = "/api/v1/seller/download/"

// files are the downloads of all events, by id: the images' with "" and the files' with their content type.
func (s *shop) files() map[string]string {
	out := make(map[string]string)
	for _, raw := range s.world.Events() {
		e := decodeEvent(s.t, raw.JSON)
		if e.Message == nil || e.Message.Attachments == nil {
			continue
		}
		for _, i := range e.Message.Attachments.Images {
			if i.DownloadID != "" {
				out[i.DownloadID] = "image/jpeg"
			}
		}
		for _, f := range e.Message.Attachments.Files {
			out[f.DownloadID] = f.ContentType
		}
	}
	return out
}

func TestDownload(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 500})
		kinds := make(map[string]int)
		for id, kind := range s.files() {
			time.Sleep(time.Minute)
			w := s.do("GET", download+id, "")
			s.wantStatus(w, http.StatusOK)
			if got := w.Header().Get("Content-Type"); got != kind || http.DetectContentType(w.Body.Bytes()) != kind {
				t.Errorf("%s: Content-Type %s, bytes of %s, want %s", id, got, http.DetectContentType(w.Body.Bytes()), kind)
			}
			time.Sleep(time.Minute)
			if again := s.do("GET", download+id, ""); !bytes.Equal(again.Body.Bytes(), w.Body.Bytes()) {
				t.Errorf("%s: other bytes the second time", id)
			}
			kinds[kind]++
		}
		if kinds["image/jpeg"] < 10 || kinds["application/pdf"] < 1 {
			t.Errorf("files %v", kinds)
		}
		w := s.do("GET", download+"nothing", "")
		s.wantStatus(w, http.StatusBadRequest, `{"status":400,"title":"invalid fileID","origin":"proxy-chats","detail":"invalid fileID",`, `"error":"invalid fileID"}`)
		if got := w.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("Content-Type %s", got)
		}
		s.wantStatus(s.do("GET", download, ""), http.StatusNotFound)
		s.wantStatus(s.do("GET", download+"a/b", ""), http.StatusNotFound)
		s.wantStatus(s.do("POST", download+"a", ""), http.StatusNotFound)
		if got := s.Stats().Requests["GET "+download+"{id}"]; got != int64(2*(kinds["image/jpeg"]+kinds["application/pdf"])+1) {
			t.Errorf("%d requests counted", got)
		}
	})
}

func TestUploadedFilesComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		sign := decodeEvent(t, s.world.AddEvent(sandbox.EventSpec{}).JSON).ReplySign
		pdf := []byte("%PDF-1.7 чек")
		s.wantStatus(s.serve(s.message(map[string]string{"replySign": sign}, map[string][]byte{"Чек.pdf": pdf})), http.StatusOK)
		for id := range s.files() {
			if w := s.do("GET", download+id, ""); w.Body.String() != string(pdf) {
				t.Errorf("got %q", w.Body)
			}
		}
	})
}

func TestModeration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{EventEvery: 10 * time.Second, ModerateFilesFor: time.Hour, RefusedFiles: 0.3})
		time.Sleep(50 * time.Minute)
		files := s.files()
		for id := range files {
			s.wantStatus(s.do("GET", download+id, ""), http.StatusAccepted, `{"moderationState":"pending","retrySeconds":30}`)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		status := make(map[int]int)
		for id := range files {
			time.Sleep(time.Second)
			w := s.do("GET", download+id, "")
			status[w.Code]++
			if w.Code == http.StatusUnavailableForLegalReasons {
				s.wantStatus(w, w.Code, `{"status":451,"title":"Unavailable for Legal Reasons","origin":"proxy-chats","detail":"moderation error","requestId":"`)
				if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
					t.Errorf("Content-Type %s", got)
				}
			}
		}
		if len(status) != 2 || status[200] == 0 || status[451] == 0 || status[451] > len(files)/2 {
			t.Errorf("statuses %v of %d files", status, len(files))
		}
	})
}

// The download has a limit of its own for Base tokens, and shares the host's for the others.
func TestDownloadBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		for range 9 {
			s.wantStatus(s.do("GET", events, ""), http.StatusOK)
		}
		s.wantStatus(s.do("GET", download+"x", ""), http.StatusBadRequest)
		s.wantStatus(s.do("GET", download+"x", ""), http.StatusTooManyRequests)

		s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccBase})
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
		for range 10 {
			s.wantStatus(s.do("GET", download+"x", ""), http.StatusBadRequest)
			w := s.do("GET", download+"x", "")
			s.wantStatus(w, http.StatusTooManyRequests)
			if got := w.Header().Get("X-Ratelimit-Retry"); got != "360" {
				t.Fatalf("retry %s", got)
			}
			s.wantStatus(s.do("GET", events, ""), http.StatusTooManyRequests)
			time.Sleep(6 * time.Minute)
		}
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
		groups := ""
		for _, b := range s.Stats().Buckets {
			groups += fmt.Sprint(b.Group, " ", b.TokenType, "; ")
		}
		if groups != "chat base; chat personal; chat/download base; " {
			t.Errorf("buckets %s", groups)
		}
	})
}
