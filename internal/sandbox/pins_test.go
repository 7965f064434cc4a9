package sandbox_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

const pins = "/api/feedbacks/v1/pins"

type pin struct {
	PinID, ImtID, NmID                                 int
	ChangeStateAt                                      time.Time
	PinMethod, PinOn, FeedbackID, State, UnpinnedCause string
}

type pinPage struct {
	Data []pin
	Next *int
}

func (s *shop) pins(query string) pinPage {
	s.t.Helper()
	var p pinPage
	s.get(pins+"?"+query, &p)
	return p
}

func (p pinPage) ids() []int {
	out := []int{}
	for _, n := range p.Data {
		out = append(out, n.PinID)
	}
	return out
}

func worldPins(w *sandbox.World) []int {
	out := []int{}
	for _, p := range w.Pins() {
		out = append(out, p.ID)
	}
	return out
}

func TestPinListIsTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 1500, Pins: 1200})
		want := worldPins(s.world)
		if len(want) != 1200 || !slices.IsSorted(want) {
			t.Fatalf("%d pins in the world", len(want))
		}
		for _, limit := range []int{500, 400, 7} { // 400: the last page is full
			var got []int
			for next := 0; ; {
				p := s.pins(fmt.Sprintf("limit=%d&next=%d", limit, next))
				got = append(got, p.ids()...)
				if p.Next == nil {
					break
				}
				if len(p.Data) != limit || *p.Next != got[len(got)-1] {
					t.Fatalf("%d pins, next %d", len(p.Data), *p.Next)
				}
				next = *p.Next
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d: not the world's list", limit)
			}
		}
		if p := s.pins(""); len(p.Data) != 500 || p.Next == nil {
			t.Errorf("without a limit %d", len(p.Data))
		}
	})
}

func TestPinShapeAndFilters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 500, Pins: 300, Span: 100 * 24 * time.Hour})
		all := s.pins("").Data
		causes, article := make(map[string]int), make(map[string]int)
		for _, f := range s.world.Feedbacks() {
			article[f.ID] = decodeFeedback(t, f.JSON).ProductDetails.NmID
		}
		for i, n := range all {
			if n.PinID == 0 || n.NmID == 0 || n.ImtID == 0 || n.ChangeStateAt.After(time.Now()) || article[n.FeedbackID] != n.NmID {
				t.Fatalf("pin %+v", n)
			}
			if (n.State == "pinned") != (n.UnpinnedCause == "") || (n.State == "pinned") != s.world.Pins()[i].Pinned {
				t.Errorf("pin %+v", n)
			}
			causes[n.UnpinnedCause]++
		}
		if len(causes) != 5 {
			t.Errorf("causes %v", causes)
		}
		one := all[100]
		middle := one.ChangeStateAt.Format(time.RFC3339)
		for query, keep := range map[string]func(pin) bool{
			"state=pinned":   func(n pin) bool { return n.State == "pinned" },
			"state=unpinned": func(n pin) bool { return n.State == "unpinned" },
			"pinOn=nm":       func(n pin) bool { return n.PinOn == "nm" },
			"pinOn=imt":      func(n pin) bool { return n.PinOn == "imt" },
			fmt.Sprintf("nmId=%d&state=pinned", one.NmID): func(n pin) bool { return n.NmID == one.NmID && n.State == "pinned" },
			fmt.Sprintf("imtId=%d", one.ImtID):            func(n pin) bool { return n.ImtID == one.ImtID },
			"feedbackId=" + one.FeedbackID:                func(n pin) bool { return n.FeedbackID == one.FeedbackID },
			"dateFrom=" + middle:                          func(n pin) bool { return !n.ChangeStateAt.Before(one.ChangeStateAt) },
			"dateTo=" + middle:                            func(n pin) bool { return !n.ChangeStateAt.After(one.ChangeStateAt) },
			"dateFrom=" + middle + "&dateTo=" + middle:    func(n pin) bool { return n.ChangeStateAt.Equal(one.ChangeStateAt) },
		} {
			var want []int
			for _, n := range all {
				if keep(n) {
					want = append(want, n.PinID)
				}
			}
			if got := s.pins(query).ids(); len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", query, got, want)
			}
			var count struct{ Data int }
			s.get(pins+"/count?"+query, &count)
			if count.Data != len(want) {
				t.Errorf("%s: count %d, want %d", query, count.Data, len(want))
			}
		}
	})
}

func TestPinParameters(t *testing.T) {
	for query, detail := range map[string]string{
		"?state=all":          "state must be one of the values 'pinned', 'unpinned'",
		"?pinOn=x":            "pinOn must be one of the values 'imt', 'nm'",
		"?nmId=x":             "nmId must be an integer",
		"?imtId=x":            "imtId must be an integer",
		"?dateFrom=1":         "dateFrom must be",
		"?dateTo=2026-01-01":  "dateTo must be",
		"?limit=501":          "limit must be",
		"?limit=0":            "limit must be",
		"?next=x":             "next must be",
		"/count?state=Pinned": "state must be one of the values 'pinned', 'unpinned'",
	} {
		s := newShop(t, sandbox.WorldSpec{})
		s.wantStatus(s.do("GET", pins+query, ""), 400, `{"status":400,"title":"Bad Request","detail":"`+detail, `"origin":"pin-open-api"}`)
	}
}

func TestPinsWithoutState(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 50, Pins: 40})
		all, pinned := s.pins("").ids(), s.pins("state=pinned").ids()
		if len(all) != 40 || len(pinned) < 20 || len(pinned) == 40 {
			t.Fatalf("%d, %d of them pinned", len(all), len(pinned))
		}
		must(t, s.SetQuirks(sandbox.Quirks{PinsWithoutState: sandbox.PinsPinned}))
		if got := s.pins("").ids(); !slices.Equal(got, pinned) {
			t.Errorf("got %v", got)
		}
		must(t, s.SetQuirks(sandbox.Quirks{PinsWithoutState: sandbox.PinsRefused}))
		s.wantStatus(s.do("GET", pins, ""), 400, "state must be one of the values 'pinned', 'unpinned'")
		if got := s.pins("state=pinned").ids(); !slices.Equal(got, pinned) {
			t.Errorf("got %v", got)
		}
	})
}

func TestPinsByHand(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		for _, id := range []string{"a", "b", "c"} {
			s.addFeedback(sandbox.FeedbackSpec{ID: id})
		}
		add := func(spec sandbox.PinSpec) sandbox.Pin {
			t.Helper()
			p, err := s.world.AddPin(spec)
			must(t, err)
			return p
		}
		a, b, c := add(sandbox.PinSpec{FeedbackID: "a"}), add(sandbox.PinSpec{FeedbackID: "b", On: "imt", Method: "tariff"}), add(sandbox.PinSpec{FeedbackID: "c"})
		if a.ID >= b.ID || b.ID >= c.ID || !a.Pinned || !strings.Contains(string(b.JSON), `"pinMethod":"tariff","pinOn":"imt","feedbackId":"b","state":"pinned"}`) {
			t.Errorf("pins %+v", s.world.Pins())
		}
		must(t, s.world.Unpin(a.ID)) // vanishes
		must(t, s.world.AutoUnpin(b.ID, sandbox.CauseTariffEnded))
		if got := s.pins("state=unpinned").Data; len(got) != 1 || got[0].PinID != b.ID || got[0].UnpinnedCause != "sysTariffUnpinned" ||
			!got[0].ChangeStateAt.After(b.Changed.Add(-time.Second)) {
			t.Errorf("unpinned %+v", got)
		}
		if got := s.pins("state=pinned").ids(); !slices.Equal(got, []int{c.ID}) {
			t.Errorf("pinned %v", got)
		}
		must(t, s.world.DeleteFeedback("c"))
		if got := s.pins("state=unpinned").Data; len(got) != 2 || got[1].PinID != c.ID || got[1].UnpinnedCause != "sysNoratingUnpinned" {
			t.Errorf("unpinned %+v", got)
		}
		if _, err := s.world.AddPin(sandbox.PinSpec{FeedbackID: "unknown"}); err == nil ||
			s.world.Unpin(b.ID) == nil || s.world.AutoUnpin(b.ID, sandbox.CauseExcluded) == nil || s.world.AutoUnpin(b.ID, "mood") == nil {
			t.Error("no error")
		}
	})
}

func TestPinWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		for i := range 20 {
			s.addFeedback(sandbox.FeedbackSpec{ID: fmt.Sprint("f", i), NmID: 100 + i/3})
		}
		type outcome struct {
			Data []struct {
				FeedbackID, PinMethod, PinOn string
				PinID                        int
				IsErrors                     bool
				Errors                       []struct{ Status, Title, RequestID, Origin string }
			}
		}
		order := func(method string, ids ...string) (out outcome, statuses string) {
			t.Helper()
			time.Sleep(time.Minute)
			var body []map[string]string
			for _, id := range ids {
				body = append(body, map[string]string{"pinMethod": method, "pinOn": "nm", "feedbackId": id})
			}
			raw, err := json.Marshal(body)
			must(t, err)
			s.read(s.do("POST", pins, string(raw)), &out)
			for _, o := range out.Data {
				if o.IsErrors != (len(o.Errors) > 0) || o.IsErrors == (o.PinID != 0) {
					t.Errorf("outcome %+v", o)
				}
				if o.IsErrors {
					statuses += o.Errors[0].Status + " "
				} else {
					statuses += "ok "
				}
			}
			return out, statuses
		}
		// f0, f1 and f2 are of one product, whose card has two places.
		out, got := order("subscription", "f0", "unknown", "f1", "f1", "f2", "f3")
		if got != "ok itemNotFound ok alreadyPinned unitLimitReached ok " {
			t.Errorf("got %s", got)
		}
		s.wantStatus(s.do("GET", pins+"/limits", ""), 200,
			`{"data":{"subscription":{"perUnitLimit":2,"remaining":12,"totalLimit":15,"unlimited":false,"used":3},"tariff":{"perUnitLimit":2,"remaining":15,`)
		if want := worldPins(s.world); !slices.Equal([]int{out.Data[0].PinID, out.Data[2].PinID, out.Data[5].PinID}, want) {
			t.Errorf("pinned %v", want)
		}

		var unpinned struct{ Data []int }
		time.Sleep(time.Minute)
		s.read(s.do("DELETE", pins, fmt.Sprintf("[%d,5,%d,%d]", out.Data[2].PinID, out.Data[0].PinID, out.Data[0].PinID)), &unpinned)
		if !slices.Equal(unpinned.Data, []int{out.Data[2].PinID, out.Data[0].PinID}) || len(s.pins("state=unpinned").Data) > 0 {
			t.Errorf("unpinned %v", unpinned.Data)
		}
		s.wantStatus(s.do("DELETE", pins, "[5]"), 200, `{"data":[]}`)

		for i := range 14 {
			f := s.addFeedback(sandbox.FeedbackSpec{NmID: 1000 + i})
			order("tariff", f.ID)
		}
		if _, got = order("tariff", "f6", "f9"); got != "ok globalLimitReached " {
			t.Errorf("got %s", got)
		}
		for _, bad := range []string{``, `{}`, `[{"pinMethod":"x","pinOn":"nm","feedbackId":"f1"}]`, `[{"pinMethod":"tariff","pinOn":"x","feedbackId":"f1"}]`, `[` + strings.Repeat(`{"pinMethod":"tariff","pinOn":"nm","feedbackId":"f"},`, 500) + `{"pinMethod":"tariff","pinOn":"nm","feedbackId":"f"}]`} {
			time.Sleep(time.Minute)
			s.wantStatus(s.do("POST", pins, bad), 400, `"detail":"invalid request body"`)
		}
		s.wantStatus(s.do("DELETE", pins, `["5"]`), 400, `"detail":"invalid request body"`)

		bare := newShop(t, sandbox.WorldSpec{NoPinPlan: true})
		bare.wantStatus(bare.do("POST", pins, "[]"), 403, `"status":403,"title":"no active subscription or tariff"`)
		bare.wantStatus(bare.do("GET", pins+"/limits", ""), 200, `{"data":{"subscription":null,"tariff":null}}`)
	})
}

func TestPinsComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 100, FeedbackEvery: 30 * time.Second, PinEvery: time.Minute, PinChangeEvery: 2 * time.Minute})
		state := make(map[int]bool)
		var made, vanished, auto int
		for range 240 {
			time.Sleep(time.Minute)
			now := make(map[int]bool)
			for _, p := range s.world.Pins() {
				now[p.ID] = p.Pinned
				was, known := state[p.ID]
				if !known {
					made++
				}
				if known && was && !p.Pinned {
					auto++
				}
			}
			for id, was := range state {
				if _, there := now[id]; was && !there {
					vanished++
				}
			}
			state = now
		}
		if made < 200 || vanished < 10 || auto < 20 {
			t.Errorf("%d made, %d vanished, %d unpinned by the marketplace", made, vanished, auto)
		}
	})
}

func TestFeedbacksAndPinsPayFromOneBucket(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		for _, target := range []string{
			"/api/v1/feedbacks?isAnswered=true&take=1&skip=0", "/api/v1/feedbacks/archive?take=1&skip=0", pins, pins + "/count", pins + "/limits",
			"/api/v1/feedbacks/count-unanswered",
		} {
			s.wantStatus(s.do("GET", target, ""), 200)
		}
		s.wantStatus(s.do("GET", questions, ""), 429)
		readOnly := newShop(t, sandbox.WorldSpec{})
		readOnly.token = readOnly.MintToken(sandbox.TokenSpec{Seller: readOnly.world.ID(), ReadOnly: true})
		for _, request := range []string{"POST /api/v1/feedbacks/answer", "PATCH /api/v1/feedbacks/answer", "POST /api/v1/feedbacks/order/return", "POST " + pins, "DELETE " + pins} {
			method, target, _ := strings.Cut(request, " ")
			readOnly.wantStatus(readOnly.do(method, target, "[]"), 403)
		}
	})
}
