package yandexmarket_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/kit"
	"syncd/internal/sandbox/yandexmarket"
)

const chats = "/v2/businesses/{business}/chats"

func bodyOf(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestKeys(t *testing.T) {
	s := open(t, yandexmarket.Config{Seed: 1, Businesses: []yandexmarket.BusinessSpec{{}, {}}})
	good, revoked := s.key, s.MintKey(yandexmarket.KeySpec{})
	s.RevokeKey(revoked)
	for key, want := range map[string]string{
		"":                       "Api-Key token is not specified",
		"Bearer " + good:         "Api-Key token prefix invalid",
		good[:len(good)-1]:       "Api-Key token length invalid",
		good[:len(good)-1] + "x": "Api-Key token is invalid",
		revoked:                  "Api-Key token is revoked",
	} {
		s.key = key
		s.wantError(s.do("GET", campaigns, ""), 401, want)
	}
	r := s.request("GET", campaigns, "")
	r.Header.Del("Api-Key")
	r.Header.Set("Authorization", "Bearer "+good)
	s.wantError(s.serve(r), 401, "Api-Key token is not specified")

	other := s.Businesses()[1]
	s.key = good
	s.wantError(s.do("POST", "/v2/businesses/"+str(other.ID())+"/chats", "{}"), 403, "Access denied")
	s.wantError(s.do("GET", campaigns+"/"+str(other.Stores()[0].ID), ""), 403, "Access denied")
	s.wantError(s.do("GET", campaigns+"/1", ""), 404, "Campaign not found")
	if st := s.Stats(); st.Unauthorized != 6 || len(st.Budgets) != 0 {
		t.Errorf("%d unauthorized, budgets %+v", st.Unauthorized, st.Budgets)
	}
}

func TestScopes(t *testing.T) {
	const denied = "Token does not have any of the scopes to access the API method"
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 3}}})
	send := chats + "/message?chatId=" + str(s.b.Chats()[0].ID)
	tests := []struct {
		scope       yandexmarket.Scope
		read, write bool
	}{
		{yandexmarket.ScopeAll, true, true}, {yandexmarket.ScopeAllReadOnly, true, false}, {yandexmarket.ScopeCommunication, true, true},
		{yandexmarket.ScopeOrders, false, false}, {yandexmarket.ScopeOrdersReadOnly, false, false}, {yandexmarket.ScopePricing, false, false},
	}
	for _, tt := range tests {
		s.key = s.MintKey(yandexmarket.KeySpec{Scopes: []yandexmarket.Scope{tt.scope}})
		if w := s.do("POST", chats, "{}"); tt.read != (w.Code == 200) {
			t.Errorf("%s reads: %d", tt.scope, w.Code)
		} else if !tt.read {
			s.wantError(w, 403, denied)
		}
		if w := s.do("POST", send, `{"message":"а"}`); tt.write != (w.Code == 200) {
			t.Errorf("%s writes: %d", tt.scope, w.Code)
		} else if !tt.write {
			s.wantError(w, 403, denied)
		}
		if w := s.do("GET", campaigns, ""); w.Code != 200 { // any scope
			t.Errorf("%s lists stores: %d", tt.scope, w.Code)
		}
	}
	s.SetScopes(s.key, yandexmarket.ScopeCommunication, yandexmarket.ScopeOrdersReadOnly)
	var token struct{ APIKey struct{ AuthScopes []string } }
	s.post("/v2/auth/token", "", &token)
	if got := strings.Join(token.APIKey.AuthScopes, " "); got != "COMMUNICATION INVENTORY_AND_ORDER_PROCESSING_READ_ONLY" {
		t.Errorf("scopes %q", got)
	}
}

func TestRequestsThatAreWrong(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 30}}})
	s.wantError(s.do("POST", "/v1/businesses/{business}/chats", "{}"), 404, "Resource not found") // the version is wrong
	s.wantError(s.do("POST", "/businesses/{business}/chats", "{}"), 404, "Resource not found")
	s.wantError(s.do("POST", "/V2/businesses/{business}/chats", "{}"), 404, "Resource not found")
	s.wantError(s.do("GET", chats, ""), 405, "Method not allowed")
	s.wantError(s.do("POST", chats, ""), 400, "Required request body is missing")
	s.wantError(s.do("POST", chats+"?limit=21", "{}"), 400, "Parameter limit must be less than or equal to '20' (rejected value: '21')")
	s.wantError(s.do("POST", chats+"?pageToken=eyBuZXh0SWQ6IDIzNDIgfQ==", "{}"), 400, "Bad page token")
	s.wantError(s.do("POST", chats, `{"contexts":[]}`), 400, "Parameter 'contexts' has invalid value")
	s.wantError(s.do("POST", chats, `"`+strings.Repeat("x", 600<<10)+`"`), 400, "The request is too big")
	s.contentType = "text/plain"
	s.wantError(s.do("POST", chats, "{}"), 415, "Content type 'text/plain' not supported")
	if st := s.Stats(); st.NotFound != 3 || st.NotAllowed != 1 {
		t.Errorf("not found %d, not allowed %d", st.NotFound, st.NotAllowed)
	}
}

// chatPage is a page of the list of chats.
type chatPage struct {
	Chats []struct {
		ChatID               int64
		Type, Status         string
		OrderID              int64
		Context              struct{ Type string }
		CreatedAt, UpdatedAt time.Time
	}
	Paging *struct{ NextPageToken string }
}

func (p chatPage) ids() []int64 {
	var out []int64
	for _, c := range p.Chats {
		out = append(out, c.ChatID)
	}
	return out
}

// next is the token of the next page; "": there is none.
func (p chatPage) next() string {
	if p.Paging == nil {
		return ""
	}
	return p.Paging.NextPageToken
}

// scan reads the whole list, and returns the ids in the order in which they came, and how many pages there were.
func (s *shop) scan(limit int) (ids []int64, pages int) {
	s.t.Helper()
	for token := ""; ; {
		var p chatPage
		s.post(chats+"?limit="+str(limit)+"&pageToken="+token, "{}", &p)
		ids = append(ids, p.ids()...)
		pages++
		if token = p.next(); token == "" {
			return ids, pages
		}
	}
}

func distinct(ids []int64) []int64 {
	out := slices.Clone(ids)
	slices.Sort(out)
	return slices.Compact(out)
}

// TestPaging: all entries, once each, in every order that a scan keeps to.
func TestPaging(t *testing.T) {
	world := yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 45}}
	for name, q := range map[string]yandexmarket.Quirks{
		"as documented": {}, "by creation": {Chats: yandexmarket.ChatQuirks{Order: yandexmarket.ChatsByCreation}},
		"newest first":                  {Chats: yandexmarket.ChatQuirks{Order: yandexmarket.ChatsByCreationDesc}},
		"shuffled":                      {Chats: yandexmarket.ChatQuirks{Order: yandexmarket.ChatsShuffledPerScan}},
		"counting":                      {TokensCount: true},
		"no paging on the last page":    {NoPagingAtEnd: true},
		"an empty page behind the last": {EmptyLastPage: true},
		"overlapping":                   {Overlap: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, yandexmarket.BusinessSpec{World: world}, q)
			ids, pages := s.scan(20)
			wantIDs, wantPages := 45, 3
			switch {
			case q.EmptyLastPage:
				wantPages = 4
			case q.Overlap:
				wantIDs = 47
			}
			if len(ids) != wantIDs || len(distinct(ids)) != 45 || pages != wantPages {
				t.Errorf("%d entries, %d different ones, %d pages", len(ids), len(distinct(ids)), pages)
			}
		})
	}
	t.Run("shuffled in every answer", func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: world}, yandexmarket.Quirks{Chats: yandexmarket.ChatQuirks{Order: yandexmarket.ChatsShuffled}, TokensCount: true})
		if ids, _ := s.scan(20); len(distinct(ids)) == 45 {
			t.Error("nothing was missed")
		}
	})
}

func TestParametersOfPages(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 45}}})
	var first, second, again chatPage
	s.post(chats, `{"limit":3,"pageToken":"x"}`, &first) // the body has no such fields: they are ignored
	if len(first.Chats) != 10 {
		t.Errorf("%d chats on a page by default", len(first.Chats))
	}
	s.post(chats+"?pageToken="+first.next(), "{}", &second)
	s.post(chats+"?page_token="+first.next(), "{}", &again)
	if slices.Equal(first.ids(), second.ids()) || !slices.Equal(second.ids(), again.ids()) {
		t.Errorf("pages %v, %v, and by the alias %v", first.ids(), second.ids(), again.ids())
	}
	// Filters stay the same in a scan, and a token is one of its method.
	s.wantError(s.do("POST", chats+"?pageToken="+first.next(), `{"types":["CHAT"]}`), 400, "Bad page token")
	s.wantError(s.do("GET", campaigns+"?pageToken="+first.next(), ""), 400, "Bad page token")
	if w := s.do("POST", chats+"?limit=0", "{}"); w.Code != 400 {
		t.Errorf("limit=0: %d", w.Code)
	}
}

func TestTokensEnd(t *testing.T) {
	const bad = "Bad page token"
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 45}}})
		var p chatPage
		s.post(chats, "{}", &p)
		use := func() int { return s.do("POST", chats+"?pageToken="+p.next(), "{}").Code }

		s.setQuirks(yandexmarket.Quirks{TokenLife: time.Minute})
		time.Sleep(time.Minute)
		if use() != 200 {
			t.Error("over before its time")
		}
		time.Sleep(time.Nanosecond)
		s.wantError(s.do("POST", chats+"?pageToken="+p.next(), "{}"), 400, bad)

		s.setQuirks(yandexmarket.Quirks{TokenUses: 2})
		if a, b, c := use(), use(), use(); a != 200 || b != 200 || c != 400 {
			t.Errorf("used three times: %d, %d, %d", a, b, c)
		}

		s.setQuirks(yandexmarket.Quirks{TokensDieWithList: true})
		s.post(chats, "{}", &p)
		if use() != 200 {
			t.Error("bad though the list is the same")
		}
		_, err := s.b.AddChat(yandexmarket.ChatBy{})
		s.must(err)
		s.wantError(s.do("POST", chats+"?pageToken="+p.next(), "{}"), 400, bad)
	})
}

func TestStores(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{Stores: []yandexmarket.StoreSpec{{Placement: yandexmarket.FBS}, {Placement: yandexmarket.DBS}}})
	list := func(query string) (ids []int64, availability []string, next string) {
		var out struct {
			Campaigns []struct {
				ID                             int64
				APIAvailability, PlacementType string
				Business                       struct{ ID int64 }
			}
			Paging struct{ NextPageToken string }
		}
		w := s.do("GET", campaigns+query, "")
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
			t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
		}
		for _, c := range out.Campaigns {
			ids, availability = append(ids, c.ID), append(availability, c.APIAvailability)
			if c.Business.ID != s.b.ID() {
				t.Errorf("store of business %d", c.Business.ID)
			}
		}
		return ids, availability, out.Paging.NextPageToken
	}
	added, err := s.b.AddStore(yandexmarket.StoreSpec{Placement: yandexmarket.FBY})
	s.must(err)
	ids, _, _ := list("")
	if len(ids) != 3 || ids[2] != added.ID {
		t.Errorf("stores %v, added %d", ids, added.ID)
	}
	first, _, next := list("?limit=2")
	second, _, last := list("?limit=2&pageToken=" + next)
	if !slices.Equal(slices.Concat(first, second), ids) || last != "" {
		t.Errorf("pages %v and %v of %v", first, second, ids)
	}
	path := campaigns + "/" + str(ids[0])
	for availability, text := range map[yandexmarket.Availability]string{
		yandexmarket.DisabledByInactivity: "due to inactivity", yandexmarket.ManuallyDisabled: "manually disabled",
	} {
		s.must(s.b.SetAvailability(ids[0], availability))
		s.wantError(s.do("GET", path, ""), 403, "API for campaign '"+str(ids[0])+"' disabled "+text)
		if _, shown, _ := list(""); shown[0] != string(availability) {
			t.Errorf("the list shows %v", shown)
		}
	}
	if w := s.do("POST", chats, "{}"); w.Code != 200 {
		t.Errorf("one of three is disabled: %d", w.Code)
	}
	for _, id := range ids {
		s.must(s.b.SetAvailability(id, yandexmarket.ManuallyDisabled))
	}
	s.wantError(s.do("POST", chats, "{}"), 403, "API for business '"+str(s.b.ID())+"' disabled because it has only disabled partners")
	list("") // still says why
	s.must(s.b.SetAvailability(ids[0], yandexmarket.Available))
	if w := s.do("GET", path, ""); w.Code != 200 {
		t.Errorf("enabled again: %d", w.Code)
	}
}

// TestFaults: each kind that has a status answers with it, in each of its variants, and pays.
func TestFaults(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{})
	for kind, statuses := range map[kit.FaultKind]int{
		yandexmarket.Fault400: 400, yandexmarket.Fault401: 401, yandexmarket.Fault403: 403, yandexmarket.Fault404: 404, yandexmarket.Fault405: 405,
		yandexmarket.Fault415: 415, yandexmarket.Fault423: 423, yandexmarket.Fault499: 499, yandexmarket.Fault500: 500,
		yandexmarket.Fault502: 502, yandexmarket.Fault503: 503, yandexmarket.Fault504: 504, yandexmarket.FaultOther200: 200, yandexmarket.FaultLate500: 500,
	} {
		for _, variant := range append(yandexmarket.Variants(kind), "") {
			s.inject(yandexmarket.Fault{Kind: kind, Variant: variant, Count: 1, Path: campaigns, Seller: str(s.b.ID())})
			before := number(t, s.do("POST", chats, "{}").Header().Get("X-RateLimit-Resource-Remaining")) // of another path
			w := s.do("GET", campaigns, "")
			if w.Code != statuses {
				t.Errorf("%s %s: status %d: %s", kind, variant, w.Code, w.Body)
			}
			if w.Header().Get("X-RateLimit-Resource-Remaining") == "" {
				t.Errorf("%s %s: no headers", kind, variant)
			}
			if after := number(t, s.do("POST", chats, "{}").Header().Get("X-RateLimit-Resource-Remaining")); after != before-1 {
				t.Errorf("%s: %d after %d", kind, after, before)
			}
		}
	}
	if left := s.Faults(); len(left) != 0 {
		t.Errorf("faults left: %v", left)
	}
	s.inject(yandexmarket.Fault{Kind: yandexmarket.Fault403, Rate: 0.3})
	refused := 0
	for range 200 {
		if w := s.do("GET", campaigns, ""); w.Code == 403 {
			s.wantError(w, 403, "The method is deprecated and is occasionally forbidden. Please stop using it")
			refused++
		}
	}
	if refused < 30 || refused > 90 {
		t.Errorf("%d of 200 are occasionally forbidden", refused)
	}
	if s.Inject(yandexmarket.Fault{Kind: "status_402"}) == nil || s.Inject(yandexmarket.Fault{Kind: yandexmarket.Fault401, Variant: "x"}) == nil {
		t.Error("an unknown kind or variant is accepted")
	}
}

func TestFault420(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		start := time.Now()
		s.inject(yandexmarket.Fault{Kind: yandexmarket.Fault420, Count: 1})
		s.wantLimits(s.overspend(), 1000, 0, start.Add(time.Hour))
		time.Sleep(time.Hour)
		s.spend(1)
		s.inject(yandexmarket.Fault{Kind: yandexmarket.Fault420, Count: 1, Delay: 90 * time.Minute}) // till half past two
		s.overspend()
		time.Sleep(90*time.Minute - 1)
		s.wantViolations(0)
		s.overspend()
		s.wantViolations(1) // it was told
		time.Sleep(1 + 30*time.Minute)
		s.spend(1)
		s.inject(yandexmarket.Fault{Kind: yandexmarket.Fault420, Variant: "parallel", Count: 1})
		s.wantError(s.overspend(), 420, "Hit rate limit of 4 parallel requests for "+string(s.b.Entity()))
		s.spend(1)
	})
}

// TestFaultsOfTheAnswer: the message is in the chat whatever becomes of the answer, and not in it when the fault comes before.
func TestFaultsOfTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 1}}})
		chat := s.b.Chats()[0].ID
		for _, tt := range []struct {
			fault   yandexmarket.Fault
			effect  bool
			status  int
			contain string
			took    time.Duration
		}{
			{yandexmarket.Fault{Kind: yandexmarket.Fault500}, false, 500, "ERROR", 0},
			{yandexmarket.Fault{Kind: yandexmarket.FaultLate500}, true, 500, "ERROR", 0},
			{yandexmarket.Fault{Kind: yandexmarket.FaultSlow}, true, 200, "OK", 10 * time.Second},
			{yandexmarket.Fault{Kind: yandexmarket.FaultSlow, Variant: "before", Delay: 3 * time.Second}, true, 200, "OK", 3 * time.Second},
			{yandexmarket.Fault{Kind: yandexmarket.FaultNoResult, Variant: "null"}, true, 200, `"result":null`, 0},
			{yandexmarket.Fault{Kind: yandexmarket.FaultErrorIn200}, true, 200, `"ERROR"`, 0},
			{yandexmarket.Fault{Kind: kit.FaultTruncated}, true, 200, `{"st`, 0},
			{yandexmarket.Fault{Kind: kit.FaultContentType}, true, 200, "OK", 0},
		} {
			tt.fault.Count = 1
			s.inject(tt.fault)
			before, began := len(s.b.Messages(chat)), time.Now()
			w := s.do("POST", chats+"/message?chatId="+str(chat), `{"message":"а"}`)
			if said := len(s.b.Messages(chat)) - before; said == 1 != tt.effect {
				t.Errorf("%s: %d messages more", tt.fault.Kind, said)
			}
			if took := time.Since(began); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.contain) || took != tt.took {
				t.Errorf("%s: %d after %s: %s", tt.fault.Kind, w.Code, took, w.Body)
			}
		}
	})
}

func TestControl(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{})
	const control = yandexmarket.ControlPrefix
	if w := s.do("POST", control+"faults", `{"kind":"status_420","count":2,"delay":"1h0m0s"}`); w.Code != 200 {
		t.Fatal(w.Body)
	}
	s.overspend()
	if w := s.do("GET", control+"faults", ""); !strings.Contains(w.Body.String(), `"count":1,"delay":"1h0m0s"`) {
		t.Errorf("faults %s", w.Body)
	}
	if w := s.do("DELETE", control+"faults", ""); w.Body.String() != "[]" {
		t.Errorf("faults %s", w.Body)
	}
	var stats yandexmarket.Stats
	if err := json.Unmarshal(s.do("GET", control+"stats", "").Body.Bytes(), &stats); err != nil || stats.Requests["getCampaigns"] != 1 || stats.Budgets[0].Refused != 1 {
		t.Errorf("stats %+v, %v", stats, err)
	}
	for _, body := range []string{`{"kind":"x"}`, `{"kind":"reset","delay":"x"}`, `{"x":1}`} {
		if w := s.do("POST", control+"faults", body); w.Code != 400 {
			t.Errorf("%s: %d", body, w.Code)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]yandexmarket.Config{
		"same business":       {Businesses: []yandexmarket.BusinessSpec{{ID: 1}, {ID: 1}}},
		"same store":          {Businesses: []yandexmarket.BusinessSpec{{Stores: []yandexmarket.StoreSpec{{ID: 1}, {ID: 1}}}}},
		"placement":           {Businesses: []yandexmarket.BusinessSpec{{Stores: []yandexmarket.StoreSpec{{Placement: "x"}}}}},
		"availability":        {Businesses: []yandexmarket.BusinessSpec{{Stores: []yandexmarket.StoreSpec{{Availability: "x"}}}}},
		"negative":            {Businesses: []yandexmarket.BusinessSpec{{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: -1}}}}},
		"no share":            {Businesses: []yandexmarket.BusinessSpec{{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{LateMessages: 2}}}}},
		"form of times":       {Businesses: []yandexmarket.BusinessSpec{{World: yandexmarket.WorldSpec{Times: 9}}}},
		"limit":               {Limits: map[yandexmarket.Method]int{"x": 1}},
		"parallel":            {Parallel: -1},
		"quirk":               {Quirks: yandexmarket.Quirks{TokenUses: -1}},
		"order of chats":      {Quirks: yandexmarket.Quirks{Chats: yandexmarket.ChatQuirks{Order: 9}}},
		"order of a history":  {Quirks: yandexmarket.Quirks{Chats: yandexmarket.ChatQuirks{HistoryOrder: 9}}},
		"a limit below zero":  {Limits: map[yandexmarket.Method]int{yandexmarket.MethodGetChats: -1}},
		"a period below zero": {Quirks: yandexmarket.Quirks{WindowPeriod: -1}},
	} {
		if _, err := yandexmarket.New(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
