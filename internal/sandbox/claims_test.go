package sandbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

const claims = "/api/v1/claims?is_archive=false"

type claimPage struct {
	Claims []json.RawMessage
	Total  int
}

type claim struct {
	ID           string
	ClaimType    int `json:"claim_type"`
	Status       int
	StatusEx     int     `json:"status_ex"`
	NmID         int     `json:"nm_id"`
	UserComment  string  `json:"user_comment"`
	WBComment    *string `json:"wb_comment"`
	DT           string
	DTUpdate     string `json:"dt_update"`
	OrderDT      string `json:"order_dt"`
	DeliveryDT   string `json:"delivery_dt"`
	Photos       []string
	VideoPaths   []string `json:"video_paths"`
	Actions      []string
	Price        float64
	CurrencyCode string `json:"currency_code"`
	Srid         string
}

func decodeClaim(t *testing.T, raw []byte) claim {
	t.Helper()
	var out claim
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *shop) claims(query string) claimPage {
	s.t.Helper()
	var p claimPage
	s.get("/api/v1/claims?"+query, &p)
	return p
}

func (p claimPage) ids(t *testing.T) []string {
	t.Helper()
	out := []string{}
	for _, raw := range p.Claims {
		out = append(out, decodeClaim(t, raw).ID)
	}
	return out
}

func (s *shop) addClaim(spec sandbox.ClaimSpec) sandbox.Claim {
	s.t.Helper()
	n, err := s.world.AddClaim(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestClaimListsAreTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Claims: 500})
		want := map[bool][]string{}
		for _, n := range s.world.Claims() {
			want[n.Archived] = append(want[n.Archived], string(n.JSON))
		}
		if len(want[true])+len(want[false]) != 500 || len(want[true]) < 100 || len(want[false]) < 50 {
			t.Fatalf("%d archived, %d under review", len(want[true]), len(want[false]))
		}
		for archived, items := range want {
			var got []string
			for offset := 0; ; offset += 70 {
				p := s.claims(fmt.Sprintf("is_archive=%t&limit=70&offset=%d", archived, offset))
				if p.Total != len(items) {
					t.Fatalf("total %d, want %d", p.Total, len(items))
				}
				if len(p.Claims) == 0 {
					break
				}
				for _, raw := range p.Claims {
					got = append(got, string(raw))
				}
			}
			slices.Reverse(got) // newest first
			if !slices.Equal(got, items) {
				t.Errorf("is_archive=%t: not the world's list", archived)
			}
			if n := len(s.claims(fmt.Sprintf("is_archive=%t", archived)).Claims); n != 50 {
				t.Errorf("is_archive=%t: %d claims without a limit, want 50", archived, n)
			}
		}
		if got := s.do("GET", "/api/v1/claims?is_archive=true&offset=9999", "").Body.String(); got != fmt.Sprintf(`{"claims":[],"total":%d}`, len(want[true])) {
			t.Errorf("behind the end: %s", got)
		}
	})
}

func TestClaimShape(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{Claims: 1000})
	id := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{11}$`)
	naive := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?$`)
	seconds := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$`)
	moscow := time.FixedZone("", 3*60*60)
	count := make(map[string]int)
	for _, raw := range s.world.Claims() {
		n := decodeClaim(t, raw.JSON)
		if !id.MatchString(n.ID) || len(n.ID) != 35 || !naive.MatchString(n.DT) || !naive.MatchString(n.DTUpdate) ||
			!seconds.MatchString(n.OrderDT) || !seconds.MatchString(n.DeliveryDT) || n.OrderDT > n.DeliveryDT || n.DeliveryDT > n.DT ||
			n.UserComment == "" || n.CurrencyCode != "643" || n.Srid == "" || n.Price <= 0 || n.NmID == 0 {
			t.Errorf("claim %s", raw.JSON)
		}
		if dt, err := time.ParseInLocation("2006-01-02T15:04:05.999999", n.DT, moscow); err != nil || !dt.Equal(raw.Created) {
			t.Errorf("dt %s, created %s: %v", n.DT, raw.Created, err)
		}
		for _, link := range slices.Concat(n.Photos, n.VideoPaths) {
			if !strings.HasPrefix(link, "//") || !strings.Contains(link, ".wbstatic.net/claim/"+n.ID+"/") {
				t.Errorf("link %s", link)
			}
		}
		if !strings.Contains(string(raw.JSON), `"photos":[`) || !strings.Contains(string(raw.JSON), `"video_paths":[`) || n.Actions == nil {
			t.Errorf("null for a list: %s", raw.JSON)
		}
		if raw.Archived != (n.Status != 0) || n.Status != 0 && (n.WBComment == nil || n.DTUpdate <= n.DT) {
			t.Errorf("claim %s", raw.JSON)
		}
		if n.Status == 0 && n.WBComment == nil {
			count["untouched"]++
		}
		if len(n.Actions) == 0 && n.Status == 0 {
			count["cannot be processed"]++
		}
		if n.Status == 1 && len(n.Actions) > 0 {
			count["refused, can be reconsidered"]++
		}
		if slices.Contains(n.Actions, "approvecc1") {
			count["in-store"]++
		}
		count[fmt.Sprint("status ", n.Status, " ", n.StatusEx)]++
		count[fmt.Sprint("type ", n.ClaimType)]++
	}
	for name, least := range map[string]int{
		"untouched": 100, "cannot be processed": 5, "refused, can be reconsidered": 50, "in-store": 20, "status 0 0": 100, "status 1 1": 50,
		"status 2 5": 20, "status 2 8": 5, "status 2 10": 20, "status 2 2": 1, "type 1": 700, "type 3": 80,
	} {
		if count[name] < least {
			t.Errorf("%s: %d times, want at least %d; %v", name, count[name], least, count)
		}
	}
}

func TestClaimParameters(t *testing.T) {
	tests := map[string]string{
		"":                                "missing field `is_archive`",
		"is_archive=":                     "is_archive: provided string was not `true` or `false`",
		"is_archive=1":                    "is_archive: provided string was not `true` or `false`",
		"is_archive=true&limit=0":         "limit: expected a number from 1 to 200",
		"is_archive=true&limit=201":       "limit: expected a number from 1 to 200",
		"is_archive=true&limit=x":         "limit: invalid digit found in string",
		"is_archive=true&offset=-1":       "offset: invalid digit found in string",
		"is_archive=true&nm_id=1.5":       "nm_id: invalid digit found in string",
		"is_archive=true&limit=200":       "",
		"is_archive=false&id=nothing":     "",
		"is_archive=false&unknown=1&id=":  "",
		"is_archive=false&offset=9999999": "",
	}
	for query, text := range tests {
		bubble(t, func(t *testing.T) {
			s := newShop(t, sandbox.WorldSpec{Claims: 5})
			w := s.do("GET", "/api/v1/claims?"+query, "")
			if text == "" {
				s.wantStatus(w, http.StatusOK, `"total":`)
				return
			}
			s.wantStatus(w, http.StatusBadRequest, `{"title":"Invalid query params","detail":"Failed to deserialize query string: `+text+`","requestId":"`)
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %s", got)
			}
		})
	}
}

func TestClaimFilters(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Claims: 200})
		var want []string
		one := s.world.Claims()[100]
		article := decodeClaim(t, one.JSON).NmID
		for _, n := range s.world.Claims() {
			if n.Archived == one.Archived && decodeClaim(t, n.JSON).NmID == article {
				want = append(want, n.ID)
			}
		}
		p := s.claims(fmt.Sprintf("is_archive=%t&nm_id=%d", one.Archived, article))
		got := p.ids(t)
		slices.Reverse(got)
		if !slices.Equal(got, want) || p.Total != len(want) {
			t.Errorf("of the article: %d of %d, want %d", len(got), p.Total, len(want))
		}
		if p := s.claims(fmt.Sprintf("is_archive=%t&id=%s", one.Archived, one.ID)); len(p.Claims) != 1 || p.Total != 1 || string(p.Claims[0]) != string(one.JSON) {
			t.Errorf("by id: %+v", p)
		}
		if p := s.claims(fmt.Sprintf("is_archive=%t&id=%s", !one.Archived, one.ID)); p.Total != 0 {
			t.Errorf("by id, in the other list: %+v", p)
		}
	})
}

func TestClaimsAreGoneAfter14Days(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, byUpdate := range []bool{false, true} {
			s := newShop(t, sandbox.WorldSpec{ClaimAgeByUpdate: byUpdate})
			n := s.addClaim(sandbox.ClaimSpec{})
			time.Sleep(7 * 24 * time.Hour)
			if err := s.world.DecideClaim(n.ID, "approve2"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(7*24*time.Hour - time.Minute - time.Microsecond)
			if p := s.claims("is_archive=true"); p.Total != 1 { // a minute later
				t.Errorf("a microsecond before the 14 days: %d", p.Total)
			}
			time.Sleep(time.Minute)
			p, known := s.claims("is_archive=true"), len(s.world.Claims())
			if (p.Total == 1) != byUpdate || (known == 1) != byUpdate {
				t.Errorf("14 days after dt, 7 after dt_update: %d in the list, %d in the world", p.Total, known)
			}
		}
	})
}

func TestOldClaimsComeBackWhenTheyChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Claims: 100, ClaimAgeByUpdate: true})
		old := 0
		for _, n := range s.world.Claims() {
			if time.Since(n.Created) > 14*24*time.Hour {
				old++
			}
		}
		if old < 3 || old > 25 || len(s.world.Claims()) != 100+old {
			t.Errorf("%d old ones of %d", old, len(s.world.Claims()))
		}
	})
}

func TestClaimOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Claims: 300})
		list := func(order sandbox.ClaimOrder) []claim {
			if err := s.SetQuirks(sandbox.Quirks{ClaimOrder: order}); err != nil {
				t.Fatal(err)
			}
			var out []claim
			for _, raw := range s.claims("is_archive=true&limit=200").Claims {
				out = append(out, decodeClaim(t, raw))
			}
			return out
		}
		for order, key := range map[sandbox.ClaimOrder]func(claim) string{
			sandbox.ClaimsNewestFirst: func(n claim) string { return n.DT },
			sandbox.ClaimsByUpdate:    func(n claim) string { return n.DTUpdate },
		} {
			if !slices.IsSortedFunc(list(order), func(a, b claim) int { return strings.Compare(key(b), key(a)) }) {
				t.Errorf("order %d: not sorted", order)
			}
		}
		byID := func(a, b claim) int { return strings.Compare(a.ID, b.ID) }
		if !slices.IsSortedFunc(list(sandbox.ClaimsByID), byID) {
			t.Error("not by id")
		}
		a, b := list(sandbox.ClaimsShuffled), list(sandbox.ClaimsShuffled)
		if slices.EqualFunc(a, b, func(a, b claim) bool { return a.ID == b.ID }) || slices.IsSortedFunc(a, byID) {
			t.Error("shuffled: the same twice")
		}
	})
}

// A claim decided between two pages makes the reader of offsets miss one, and `total` tells.
func TestClaimsMoveBetweenPages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		var ids []string
		for range 4 {
			time.Sleep(time.Second)
			ids = append(ids, s.addClaim(sandbox.ClaimSpec{}).ID)
		}
		slices.Reverse(ids)
		first := s.claims("is_archive=false&limit=2")
		if err := s.world.DecideClaim(ids[0], "reject1"); err != nil {
			t.Fatal(err)
		}
		second := s.claims("is_archive=false&limit=2&offset=2")
		if !slices.Equal(first.ids(t), ids[:2]) || !slices.Equal(second.ids(t), ids[3:]) || first.Total != 4 || second.Total != 3 {
			t.Errorf("pages %v of %d and %v of %d", first.ids(t), first.Total, second.ids(t), second.Total)
		}
		archived := s.claims("is_archive=true")
		if n := decodeClaim(t, archived.Claims[0]); archived.Total != 1 || n.ID != ids[0] || n.Status != 1 || n.DTUpdate <= n.DT {
			t.Errorf("archive %s", archived.Claims)
		}
		if err := s.world.ReopenClaim(ids[0]); err != nil {
			t.Fatal(err)
		}
		if p := s.claims("is_archive=false"); !slices.Equal(p.ids(t), ids) || decodeClaim(t, p.Claims[0]).Status != 0 {
			t.Errorf("reopened: %s", p.Claims)
		}
		if s.world.DecideClaim(ids[0], "nothing") == nil || s.world.DecideClaim("nothing", "reject1") == nil || s.world.ReopenClaim("nothing") == nil {
			t.Error("no error for what does not exist")
		}
	})
}

func TestTouchClaim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		n := s.addClaim(sandbox.ClaimSpec{Comment: "Не подошло", NmID: 7})
		time.Sleep(time.Hour)
		touch := func(fields map[string]any) claim {
			t.Helper()
			if err := s.world.TouchClaim(n.ID, fields); err != nil {
				t.Fatal(err)
			}
			return decodeClaim(t, s.world.Claims()[0].JSON)
		}
		got := touch(map[string]any{"status_ex": 10, "wb_comment": "да"})
		if got.StatusEx != 10 || *got.WBComment != "да" || got.DTUpdate != got.DT || got.UserComment != "Не подошло" || got.NmID != 7 || s.world.Claims()[0].Archived {
			t.Errorf("touched: %+v", got)
		}
		if got = touch(map[string]any{"dt_update": time.Now()}); got.DTUpdate <= got.DT || !s.world.Claims()[0].Updated.Equal(time.Now().Truncate(time.Microsecond)) {
			t.Errorf("moved: %+v", got)
		}
		for name, fields := range map[string]map[string]any{
			"unknown": {"is_archive": true}, "type": {"status": "x"}, "time": {"dt": "2026-11-22"}, "update": {"dt_update": ""}, "no JSON": {"status": func() {}},
		} {
			before := string(s.world.Claims()[0].JSON)
			fields["wb_comment"] = "нет"
			if s.world.TouchClaim(n.ID, fields) == nil || string(s.world.Claims()[0].JSON) != before {
				t.Errorf("%s: no error, or a trace", name)
			}
		}
		if s.world.TouchClaim("nothing", nil) == nil {
			t.Error("no error for an unknown id")
		}
		if _, err := s.world.AddClaim(sandbox.ClaimSpec{ID: n.ID}); err == nil {
			t.Error("no error for an id that exists")
		}
		odd := s.addClaim(sandbox.ClaimSpec{ID: "odd", Raw: json.RawMessage(`[1]`)})
		if string(odd.JSON) != `[1]` || !strings.Contains(s.do("GET", claims, "").Body.String(), `[1]`) {
			t.Errorf("raw: %s", odd.JSON)
		}
	})
}

func TestClaimsLive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Claims: 50, ClaimEvery: time.Minute, ClaimChangeEvery: 20 * time.Second, StillClaimChanges: 0.3})
		before := make(map[string]sandbox.Claim)
		for _, n := range s.world.Claims() {
			before[n.ID] = n
		}
		count := make(map[string]int)
		for range 3600 {
			time.Sleep(time.Second)
			for _, n := range s.world.Claims() {
				was, known := before[n.ID]
				before[n.ID] = n
				switch {
				case !known:
					count["new"]++
				case string(was.JSON) == string(n.JSON):
					continue
				case was.Updated.Equal(n.Updated):
					count["changed without dt_update"]++
				default:
					count["changed"]++
				}
				if known && was.Archived != n.Archived {
					count[fmt.Sprint("archived: ", n.Archived)]++
				}
			}
		}
		for name, least := range map[string]int{"new": 50, "changed": 100, "changed without dt_update": 30, "archived: true": 50, "archived: false": 10} {
			if count[name] < least {
				t.Errorf("%s: %d times, want at least %d", name, count[name], least)
			}
		}
	})
}

func TestPatchClaim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		n := s.addClaim(sandbox.ClaimSpec{})
		patch := func(status int, detail, body string) {
			t.Helper()
			time.Sleep(3 * time.Second)
			w := s.do("PATCH", "/api/v1/claim", strings.ReplaceAll(body, "ID", n.ID))
			if status == http.StatusOK {
				s.wantStatus(w, status)
				if w.Body.Len() != 0 || w.Header().Get("Content-Type") != "" {
					t.Errorf("a body: %s %s", w.Header().Get("Content-Type"), w.Body)
				}
				return
			}
			s.wantStatus(w, status, `{"title":"Validation error","detail":"Input model is not valid; Details: `+detail, `"requestId":"0HN`)
			if got := w.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
				t.Errorf("Content-Type %s", got)
			}
		}
		now := func() claim { t.Helper(); return decodeClaim(t, s.world.Claims()[0].JSON) }

		for body, detail := range map[string]string{
			``: "The input was not valid JSON", `[]`: "The input was not valid JSON", `{"action":"reject1"}`: "The Id field is required.",
			`{"id":"ID"}`: "The Action field is required.", `{"id":"ID","action":"rejectcustom"}`: "The Comment field is required.",
			`{"id":"ID","action":"rejectcustom","comment":"короткий"}`:                          "The field Comment must be",
			`{"id":"ID","action":"rejectcustom","comment":"` + strings.Repeat("я", 1001) + `"}`: "The field Comment must be",
			`{"id":"ID","action":"approvecc1"}`:                                                 "The Action must be one of: autorefund1,", `{"id":"x","action":"reject1"}`: "Claim not found",
		} {
			patch(http.StatusBadRequest, detail, body)
		}
		if got := now(); got.Status != 0 || got.DTUpdate != got.DT {
			t.Errorf("refused answers took effect: %+v", got)
		}

		patch(http.StatusOK, "", `{"id":"ID","action":"rejectcustom","comment":"`+strings.Repeat("я", 10)+`"}`)
		if got := now(); got.Status != 1 || got.StatusEx != 1 || *got.WBComment != strings.Repeat("я", 10) || got.DTUpdate <= got.DT || !s.world.Claims()[0].Archived {
			t.Errorf("rejected: %+v", got)
		}
		rejected := now().DTUpdate
		patch(http.StatusBadRequest, "The Action must be one of: autorefund1, approve1, approve2.", `{"id":"ID","action":"reject1"}`)
		patch(http.StatusOK, "", `{"id":"ID","action":"approve1","comment":"Комментарий не нужен"}`)
		if got := now(); got.Status != 2 || got.StatusEx != 8 || len(got.Actions) != 0 || got.DTUpdate <= rejected || strings.Contains(*got.WBComment, "не нужен") {
			t.Errorf("reconsidered: %+v", got)
		}
		patch(http.StatusBadRequest, "The Action must be one of: .", `{"id":"ID","action":"approve1"}`)
		s.wantStatus(s.do("PATCH", "/api/v1/claim", strings.Repeat(" ", 2<<20)), http.StatusRequestEntityTooLarge)
	})
}

func TestInStoreClaim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Claims: 300})
		var store sandbox.Claim
		for _, n := range s.world.Claims() {
			if slices.Equal(decodeClaim(t, n.JSON).Actions, []string{"approvecc1", "rejectcustom"}) {
				store = n
			}
		}
		for _, action := range []string{"approvecc1", "confirmreturngoodcc1"} {
			s.wantStatus(s.do("PATCH", "/api/v1/claim", `{"id":"`+store.ID+`","action":"`+action+`"}`), http.StatusOK)
			p := s.claims("is_archive=" + fmt.Sprint(action != "approvecc1") + "&id=" + store.ID)
			if p.Total != 1 {
				t.Fatalf("%s: not in its list", action)
			}
			store.JSON = p.Claims[0]
		}
		if n := decodeClaim(t, store.JSON); n.Status != 2 || n.StatusEx != 10 || len(n.Actions) != 0 {
			t.Errorf("returned: %s", store.JSON)
		}
	})
}
