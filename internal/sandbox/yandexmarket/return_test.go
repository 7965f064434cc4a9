package yandexmarket_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/yandexmarket"
)

// returnItem is what a client reads of a return.
type returnItem struct {
	ID, OrderID              int64
	ReturnType, RefundStatus string
	ShipmentStatus           string
	ShipmentRecipientType    string
	LogisticPickupPoint      *struct{ ID int64 }
	CreationDate, UpdateDate time.Time
	PickupTillDate           *time.Time
	FastReturn               *bool
	RefundAmount             int64
	Amount                   *struct {
		Value      json.Number
		CurrencyID string
	}
	Items []struct {
		ShopSku   string
		Decisions []struct {
			ReturnItemID int64
			DecisionType string
			Images       []string
		}
	}
}

func rawList(items ...json.RawMessage) []json.RawMessage { return items }

// returns reads all pages of a store's list.
func (s *shop) returns(campaign int64, query string) []returnItem {
	s.t.Helper()
	target := fmt.Sprintf("/v2/campaigns/%d/returns?%s", campaign, query)
	return decodeAll[returnItem](s.t, s.walkItems("GET", target, "", "returns"))
}

func returnIDs(items []returnItem) (ids []int64) {
	for _, r := range items {
		ids = append(ids, r.ID)
	}
	return ids
}

func (s *shop) addReturn(spec yandexmarket.NewReturn) yandexmarket.Return {
	s.t.Helper()
	r, err := s.b.AddReturn(spec)
	s.must(err)
	return r
}

// firstStore is the campaignId of the first store.
func (s *shop) firstStore() int64 { return s.b.Stores()[0].ID }

// TestReturnDates: fromDate and toDate are days of the update, in either zone, with each end in or out; the old names do
// nothing, are refused, or work.
func TestReturnDates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		for id, updated := range map[int64]string{
			1: "1999-12-01T20:59:59Z", 2: "1999-12-01T21:00:00Z", 3: "1999-12-02T00:00:00Z", 4: "1999-12-02T20:59:59Z", 5: "1999-12-02T21:00:00Z",
			6: "1999-12-02T23:59:59Z", 7: "1999-12-03T00:00:00Z",
		} {
			at, err := time.Parse(time.RFC3339, updated)
			s.must(err)
			s.addReturn(yandexmarket.NewReturn{ID: id, Created: at})
		}
		const day = "fromDate=1999-12-02&toDate=1999-12-02"
		for _, tc := range []struct {
			name, query string
			quirks      yandexmarket.ReturnQuirks
			want        []int64
		}{
			{"no dates: all", "", yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsOldestFirst}, []int64{1, 2, 3, 4, 5, 6, 7}},
			{"newest first", "", yandexmarket.ReturnQuirks{}, []int64{7, 6, 5, 4, 3, 2, 1}},
			{"one day in Moscow", day, yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsByID}, []int64{2, 3, 4}},
			{"one day in UTC", day, yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsByID, DaysInUTC: true}, []int64{3, 4, 5, 6}},
			{"fromDate is out", "fromDate=1999-12-01", yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsByID, FromExclusive: true}, []int64{2, 3, 4, 5, 6, 7}},
			{"toDate is out", "toDate=1999-12-02", yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsByID, ToExclusive: true}, []int64{1}},
			{"old names", "from_date=1999-12-03&to_date=1999-12-03", yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsByID}, []int64{1, 2, 3, 4, 5, 6, 7}},
			{"old names as before", "from_date=1999-12-03&to_date=1999-12-03",
				yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsByID, OldDates: yandexmarket.OldDatesWork}, []int64{5, 6, 7}},
		} {
			s.setQuirks(yandexmarket.Quirks{Returns: tc.quirks})
			if got := returnIDs(s.returns(s.firstStore(), tc.query)); !slices.Equal(got, tc.want) {
				t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
			}
		}
		s.setQuirks(yandexmarket.Quirks{Returns: yandexmarket.ReturnQuirks{OldDates: yandexmarket.OldDatesRefused}})
		if w := s.do("GET", "/v2/campaigns/"+str(s.firstStore())+"/returns?to_date=1999-12-03", ""); w.Code != 400 {
			t.Errorf("switched off and refused: %d %s", w.Code, w.Body)
		}
	})
}

// TestReturnFilters: what each filter finds, of a history with some of everything, and what is refused.
func TestReturnFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Returns: yandexmarket.ReturnSpec{History: 400}}})
		all := s.returns(s.firstStore(), "limit=100")
		if len(all) != 400 {
			t.Fatalf("%d returns", len(all))
		}
		orders := make(map[int64]int)
		for _, r := range all {
			orders[r.OrderID]++
		}
		several := slices.MaxFunc(slices.Sorted(maps.Keys(orders)), func(a, b int64) int { return orders[a] - orders[b] })
		if orders[several] < 2 {
			t.Error("no order has several returns")
		}
		for _, tc := range []struct {
			query string
			keep  func(returnItem) bool
		}{
			{"type=RETURN", func(r returnItem) bool { return r.ReturnType == "RETURN" }},
			{"type=UNREDEEMED", func(r returnItem) bool { return r.ReturnType == "UNREDEEMED" }},
			{"statuses=REFUNDED,REFUND_IN_PROGRESS", func(r returnItem) bool { return r.RefundStatus == "REFUNDED" || r.RefundStatus == "REFUND_IN_PROGRESS" }},
			{"statuses=REFUNDED&statuses=REFUND_IN_PROGRESS", func(r returnItem) bool { return r.RefundStatus == "REFUNDED" || r.RefundStatus == "REFUND_IN_PROGRESS" }},
			{"shipmentStatuses=READY_FOR_PICKUP,%20PICKED", func(r returnItem) bool { return r.ShipmentStatus == "READY_FOR_PICKUP" || r.ShipmentStatus == "PICKED" }},
			{"orderIds=1," + str(several), func(r returnItem) bool { return r.OrderID == several }},
		} {
			var want []int64
			for _, r := range all {
				if tc.keep(r) {
					want = append(want, r.ID)
				}
			}
			if got := returnIDs(s.returns(s.firstStore(), tc.query)); len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("%s: %d, want %d", tc.query, len(got), len(want))
			}
		}
		list := "/v2/campaigns/" + str(s.firstStore()) + "/returns?"
		for _, bad := range []string{
			"statuses=SOME", "shipmentStatuses=SOME", "type=SOME", "orderIds=x", "fromDate=2026-1-1", "toDate=2026-13-01", "limit=0", "pageToken=x",
			"orderIds=" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(make51())), ","), "[]"), "orderIds=7,7",
		} {
			if w := s.do("GET", list+bad, ""); w.Code != 400 {
				t.Errorf("%s: %d", bad, w.Code)
			}
		}
		for limit, want := range map[string]int{"": 50, "limit=100": 100, "limit=200": 100, "limit=7": 7} {
			if items, _ := s.pageItems("GET", list+limit, "", "returns"); len(items) != want {
				t.Errorf("%q: %d on the page, want %d", limit, len(items), want)
			}
		}
	})
}

// TestReturnMovesBetweenPages: in the order of updates, a return that is updated while the list is read moves: to the front,
// where a reader has been, or to the end, where it comes twice.
func TestReturnMovesBetweenPages(t *testing.T) {
	for order, times := range map[yandexmarket.ReturnOrder]int{yandexmarket.ReturnsNewestFirst: 0, yandexmarket.ReturnsOldestFirst: 1, yandexmarket.ReturnsByID: 1, yandexmarket.ReturnsShuffled: 1} {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Returns: yandexmarket.ReturnSpec{History: 30}}},
				yandexmarket.Quirks{Returns: yandexmarket.ReturnQuirks{Order: order}})
			target := "/v2/campaigns/" + str(s.firstStore()) + "/returns?limit=10"
			before := returnIDs(s.returns(s.firstStore(), "limit=10"))
			first, token := s.pageItems("GET", target, "", "returns")
			second, _ := s.pageItems("GET", target+"&pageToken="+token, "", "returns")
			moved := decodeAll[returnItem](t, second)[3].ID // not yet read
			time.Sleep(time.Hour)
			s.must(s.b.ChangeReturn(moved, yandexmarket.ReturnChange{Refund: "REJECTED"}))
			seen := returnIDs(decodeAll[returnItem](t, first))
			for token != "" {
				var items []json.RawMessage
				items, token = s.pageItems("GET", target+"&pageToken="+token, "", "returns")
				seen = append(seen, returnIDs(decodeAll[returnItem](t, items))...)
			}
			count := 0
			for _, id := range seen {
				if id == moved {
					count++
				}
			}
			if count != times || len(seen) != 29+times {
				t.Errorf("order %d: the return was read %d times, want %d, of %d", order, count, times, len(seen))
			}
			again := returnIDs(s.returns(s.firstStore(), "limit=10"))
			if sameOrder := slices.Equal(before, again); order == yandexmarket.ReturnsShuffled && sameOrder {
				t.Error("two scans in the same order")
			}
		})
	}
}

// TestReturnFields: which fields a return has, as the document's words about ReturnDTO have it.
func TestReturnFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Returns: yandexmarket.ReturnSpec{History: 600, Undated: 0.1}}})
		var decimals, fast, undated, still int
		for _, r := range s.returns(s.firstStore(), "limit=100") {
			if (r.RefundStatus == "") != (r.ReturnType == "UNREDEEMED") {
				t.Errorf("%s with refundStatus %q", r.ReturnType, r.RefundStatus)
			}
			if (r.PickupTillDate != nil) != (r.ShipmentStatus == "READY_FOR_PICKUP") {
				t.Errorf("pickupTillDate of a return that is %q", r.ShipmentStatus)
			}
			if r.PickupTillDate != nil && !r.CreationDate.IsZero() && !r.PickupTillDate.After(r.UpdateDate) {
				t.Errorf("to be picked up until %s, of %s", r.PickupTillDate, r.UpdateDate)
			}
			if strings.Contains(r.RefundStatus, "DECISION") && r.ShipmentStatus != "" && r.ShipmentStatus != "CREATED" {
				t.Errorf("goods are on their way (%s) and the return is %s", r.ShipmentStatus, r.RefundStatus)
			}
			if r.ShipmentStatus == "" && (r.LogisticPickupPoint != nil || r.ShipmentRecipientType != "") {
				t.Errorf("return %d goes nowhere, and has a way: %+v", r.ID, r)
			}
			if r.FastReturn != nil && *r.FastReturn {
				if fast++; r.ShipmentStatus != "" {
					t.Error("fast return: the goods stay with the buyer")
				}
			} else if r.ShipmentStatus == "" {
				still++
			}
			if r.CreationDate.IsZero() {
				undated++
			} else if r.UpdateDate.Before(r.CreationDate) {
				t.Errorf("updated at %s, created at %s", r.UpdateDate, r.CreationDate)
			}
			if r.ReturnType == "RETURN" {
				kopecks, err := json.Number(strings.ReplaceAll(r.Amount.Value.String(), ".", "")).Int64()
				whole := !strings.Contains(r.Amount.Value.String(), ".")
				if whole {
					kopecks *= 100
				} else {
					decimals++
				}
				if err != nil || kopecks != r.RefundAmount || r.Amount.CurrencyID != "RUR" {
					t.Errorf("amount %s %s, in kopecks %d", r.Amount.Value, r.Amount.CurrencyID, r.RefundAmount)
				}
			}
		}
		if decimals == 0 || fast == 0 || undated == 0 || still == 0 {
			t.Errorf("%d amounts with kopecks, %d fast, %d undated, %d that go nowhere yet", decimals, fast, undated, still)
		}
	})
}

// TestOneReturn: the method for one return shows what the list shows, and only under its own order and store; files are files.
func TestOneReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{
			Stores: []yandexmarket.StoreSpec{{ID: 11}, {ID: 12}}, World: yandexmarket.WorldSpec{Returns: yandexmarket.ReturnSpec{History: 60}},
		})
		path := func(campaign, order, id any) string {
			return fmt.Sprintf("/v2/campaigns/%v/orders/%v/returns/%v", campaign, order, id)
		}
		kinds := make(map[string]int)
		for _, r := range s.b.Returns() {
			var got json.RawMessage
			s.result(s.do("GET", path(r.CampaignID, r.OrderID, r.ID), ""), &got)
			if !bytes.Equal(got, r.JSON) {
				t.Fatalf("by id %s, in the list %s", got, r.JSON)
			}
			item := decodeAll[returnItem](t, rawList(r.JSON))[0]
			w := s.do("GET", path(r.CampaignID, r.OrderID, r.ID)+"/application", "")
			if isPDF := w.Code == 200 && bytes.HasPrefix(w.Body.Bytes(), []byte("%PDF-")); isPDF != (item.ReturnType == "RETURN") {
				t.Errorf("application of %s: %d %.20s", item.ReturnType, w.Code, w.Body)
			}
			for _, i := range item.Items {
				for _, d := range i.Decisions {
					for _, hash := range d.Images {
						w := s.do("GET", fmt.Sprintf("%s/decision/%d/image/%s", path(r.CampaignID, r.OrderID, r.ID), d.ReturnItemID, hash), "")
						_, format, err := image.DecodeConfig(w.Body)
						if kind := w.Header().Get("Content-Type"); err != nil || kind != "image/"+format {
							t.Fatalf("photo: %v, %s as %s", err, format, kind)
						}
						kinds[format]++
					}
				}
			}
		}
		if kinds["png"] == 0 || kinds["jpeg"] == 0 {
			t.Errorf("formats %v", kinds)
		}
		r := s.b.Returns()[0]
		s.wantError(s.do("GET", path(r.CampaignID, 5, r.ID), ""), 404, fmt.Sprintf("Return '%d' for order '5' is not found", r.ID))
		s.wantError(s.do("GET", path(12, r.OrderID, r.ID), ""), 404, fmt.Sprintf("Return '%d' for order '%d' is not found", r.ID, r.OrderID))
	})
}

// TestReturnDecision: what may be decided depends on the store and the status; a submitted decision moves the return on.
func TestReturnDecision(t *testing.T) {
	for placement, want := range map[yandexmarket.Placement]struct{ waiting, decided, decision string }{
		yandexmarket.FBS: {"PREMODERATION_DECISION_WAITING", "PREMODERATION_DECISION_MADE", "FAST_REFUND_MONEY"},
		yandexmarket.DBS: {"WAITING_FOR_DECISION", "DECISION_MADE", "REPAIR"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t, yandexmarket.BusinessSpec{Stores: []yandexmarket.StoreSpec{{ID: 11, Placement: placement}}})
			r := s.addReturn(yandexmarket.NewReturn{})
			one := func() returnItem { return s.returns(11, "")[0] }
			if got := one(); got.RefundStatus != want.waiting {
				t.Fatalf("%s: new return is %s", placement, got.RefundStatus)
			}
			available := func() (kinds []string) {
				var result struct {
					AvailableDecisions []struct{ DecisionType string }
				}
				s.post("/v1/businesses/{business}/returns/decisions", fmt.Sprintf(`{"campaignId":11,"returnId":%d}`, r.ID), &result)
				for _, d := range result.AvailableDecisions {
					kinds = append(kinds, d.DecisionType)
				}
				return kinds
			}
			if !slices.Contains(available(), want.decision) {
				t.Errorf("%s: available are %v", placement, available())
			}
			path := fmt.Sprintf("/v2/campaigns/11/orders/%d/returns/%d/decision", r.OrderID, r.ID)
			var items []string
			for _, i := range one().Items {
				items = append(items, fmt.Sprintf(`{"returnItemId":%d,"decisionType":%q}`, i.Decisions[0].ReturnItemID, want.decision))
			}
			time.Sleep(time.Hour)
			if placement == yandexmarket.DBS { // first the deprecated method, for each item, and then without a body
				for _, item := range items {
					if w := s.do("POST", path, item); w.Code != 200 {
						t.Fatalf("%d %s", w.Code, w.Body)
					}
				}
				items = nil
			} else if w := s.do("POST", path+"/submit", ""); w.Code != 400 {
				t.Errorf("submitted without a decision: %d", w.Code)
			}
			body := ""
			if items != nil {
				body = `{"returnItemDecisions":[` + strings.Join(items, ",") + `]}`
			}
			if w := s.do("POST", path+"/submit", body); w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			got := one()
			if got.RefundStatus != want.decided || got.Items[0].Decisions[0].DecisionType != want.decision || got.UpdateDate.Sub(got.CreationDate) < time.Hour {
				t.Errorf("%s: decided: %+v", placement, got)
			}
			if w := s.do("POST", path+"/submit", body); w.Code != 400 || len(available()) != 0 {
				t.Errorf("%s: decided twice: %d, %v", placement, w.Code, available())
			}
			s.setQuirks(yandexmarket.Quirks{Returns: yandexmarket.ReturnQuirks{DeprecatedDenied: 1}})
			s.wantError(s.do("POST", path, `{}`), 403, "The method is deprecated and is occasionally forbidden. Please stop using it")
		})
	}
}

// TestReturnsGrow: returns come and move on along the ways of their store, mostly with a new updateDate; a store that is
// opened later has its own from then on.
func TestReturnsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{
			Stores: []yandexmarket.StoreSpec{{ID: 11, Placement: yandexmarket.FBS}, {ID: 12, Placement: yandexmarket.DBS}, {ID: 13, Placement: yandexmarket.FBY}},
			World: yandexmarket.WorldSpec{Journal: true, Returns: yandexmarket.ReturnSpec{
				History: 20, Every: 2 * time.Hour, ChangeEvery: 30 * time.Minute, StillChanges: 0.2, Late: 0.2, LateBy: time.Hour,
			}},
		})
		time.Sleep(10 * 24 * time.Hour)
		opened := time.Now()
		_, err := s.b.AddStore(yandexmarket.StoreSpec{ID: 14})
		s.must(err)
		if n := len(s.returns(14, "")); n != 20 {
			t.Errorf("the new store has %d returns of its history", n)
		}
		time.Sleep(10 * 24 * time.Hour)
		last := make(map[string]returnItem)
		var moved, still, late int
		steps := make(map[string]int)
		for _, showing := range s.b.Journal() {
			if showing.Kind != yandexmarket.KindReturn {
				continue
			}
			now := decodeAll[returnItem](t, rawList(showing.JSON))[0]
			if strings.HasPrefix(showing.ID, "14/") && showing.From.Before(opened) {
				t.Error("a return of a store before it was opened")
			}
			before, known := last[showing.ID]
			last[showing.ID] = now
			switch {
			case !known && showing.From.Sub(now.CreationDate) > time.Minute && now.CreationDate.After(opened):
				late++
			case known && now.UpdateDate.Equal(before.UpdateDate):
				still++
			case known:
				moved++
			}
			if known && before.RefundStatus != now.RefundStatus {
				steps[before.RefundStatus+" "+now.RefundStatus]++
			}
			if known && before.RefundStatus == now.RefundStatus && before.ShipmentStatus == now.ShipmentStatus {
				t.Errorf("return %s changed, and neither status did", showing.ID)
			}
		}
		if moved < 500 || still < 100 || late == 0 || len(last) < 4*80 {
			t.Errorf("%d moved, %d without a new date, %d late, %d returns", moved, still, late, len(last))
		}
		for _, step := range []string{
			"PREMODERATION_DECISION_WAITING PREMODERATION_DECISION_MADE", "PREMODERATION_DECISION_WAITING PREMODERATION_DISPUTE",
			"PREMODERATION_SELECT_DELIVERY REFUND_IN_PROGRESS", "REFUND_IN_PROGRESS REFUNDED", "WAITING_FOR_DECISION DECISION_MADE",
		} {
			if steps[step] == 0 {
				t.Errorf("nothing went from %s: %v", step, steps)
			}
		}
		for step := range steps {
			if strings.HasPrefix(step, "REFUNDED") || strings.HasSuffix(step, "STARTED_BY_USER") {
				t.Errorf("a return went %s", step)
			}
		}
	})
}
