package wildberries_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"syncd/internal/sources/wildberries"
)

func jwt(payload string) string {
	return "eyJhbGciOiJFUzI1NiJ9." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2lnbmF0dXJl"
}

func TestParseToken(t *testing.T) {
	exp := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, raw string
		want      wildberries.Token
	}{
		{"personal, with internal fields", token(3), wildberries.Token{Type: wildberries.Personal, Seller: seller, Scopes: 16126, Scoped: true, Expires: exp}},
		{"base", jwt(`{"acc":1,"sid":"a","s":0,"exp":1798761600}`), wildberries.Token{Type: wildberries.Base, Seller: "a", Scoped: true, Expires: exp}},
		{"test", jwt(`{"acc":2,"t":true,"sid":"a","s":0}`), wildberries.Token{Type: wildberries.Test, Seller: "a", Scoped: true}},
		{"test, whatever acc says", jwt(`{"acc":3,"t":true,"sid":"a","s":512}`), wildberries.Token{Type: wildberries.Test, Seller: "a", Scopes: 512, Scoped: true}},
		{"t is nothing to tell by", jwt(`{"acc":3,"t":"true","sid":"a"}`), wildberries.Token{Type: wildberries.Personal, Seller: "a"}},
		{"expired", jwt(`{"acc":3,"sid":"a","exp":1}`), wildberries.Token{Type: wildberries.Personal, Seller: "a", Expires: time.Unix(1, 0).UTC()}},
		{"service", jwt(`{"acc":4,"for":"asid:1","sid":"a"}`), wildberries.Token{Type: wildberries.Service, Seller: "a"}},
		{"all bits", jwt(`{"acc":3,"sid":"a","s":18446744073709551615}`), wildberries.Token{Type: wildberries.Personal, Seller: "a", Scopes: 1<<64 - 1, Scoped: true}},
		{"nothing but sid", jwt(`{"sid":"a"}`), wildberries.Token{Seller: "a"}},
		{"nulls", jwt(`{"sid":"a","acc":null,"s":null,"exp":null}`), wildberries.Token{Seller: "a"}},
		{"acc beyond 32 bits", jwt(`{"sid":"a","acc":4294967299}`), wildberries.Token{Seller: "a"}},
		{"huge numbers", jwt(`{"sid":"a","acc":1e300,"s":1e300,"exp":1e300}`), wildberries.Token{Seller: "a"}},
		{"negative numbers", jwt(`{"sid":"a","acc":3,"s":-1,"exp":-1}`), wildberries.Token{Type: wildberries.Personal, Seller: "a"}},
		{"fraction of a second", jwt(`{"sid":"a","exp":1798761600.5}`), wildberries.Token{Seller: "a", Expires: exp}},
		{"padding", strings.Replace(jwt(`{"sid":"a"}`), ".c2", "=.c2", 1), wildberries.Token{Seller: "a"}},
	} {
		if got, err := wildberries.ParseToken(tt.raw); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; expected %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestParseTokenErrors(t *testing.T) {
	good := token(3)
	for name, raw := range map[string]string{
		"empty": "", "garbage": "garbage-garbage-garbage", "two parts": "aaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbb", "four parts": good + ".dddddddddddddddddddd",
		"Bearer": "Bearer " + good, "bearer": "bearer " + good, "line break": good + "\n", "two lines": good + "\n" + good, "space": " " + good, "inner space": strings.Replace(good, ".", ". ", 1),
		"not ASCII": good + "ё", "zero": good + "\x00", "not base64": "eyJhbGciOiJFUzI1NiJ9.!!!!!!!!!!!!!!!!!!!!!!!!.c2lnbmF0dXJl", "no JSON": jwt("secretsecretsecret"), "JSON and more": jwt(`{"sid":"a"}secretsecretsecret`),
		"array": jwt(`["secretsecretsecret"]`), "null": jwt("null"), "no sid": jwt(`{"acc":3}`), "empty sid": jwt(`{"sid":""}`), "sid is a number": jwt(`{"sid":123456789012345678}`),
		"sid with a slash": jwt(`{"sid":"a/b"}`), "sid with a line break": jwt(`{"sid":"a\nb"}`), "long sid": jwt(`{"sid":"` + strings.Repeat("a", 101) + `"}`),
		"acc is text": jwt(`{"sid":"a","acc":"secretsecretsecret"}`), "s is a list": jwt(`{"sid":"a","s":[7]}`), "exp is a date": jwt(`{"sid":"a","exp":"2027-01-01"}`),
	} {
		_, err := wildberries.ParseToken(raw)
		if err == nil {
			t.Errorf("%s is accepted", name)
			continue
		}
		for i := 0; i+12 <= len(raw); i++ {
			if strings.Contains(err.Error(), raw[i:i+12]) || strings.Contains(err.Error(), "secretsecret") {
				t.Errorf("%s: the error holds a piece of the token: %v", name, err)
				break
			}
		}
	}
}

func TestTokenOpens(t *testing.T) {
	for _, tt := range []struct {
		name, payload            string
		feedbacks, chat, returns bool
	}{
		{"all", `{"sid":"a","acc":3,"s":16126}`, true, true, true},
		{"feedbacks", `{"sid":"a","acc":3,"s":128}`, true, false, false},
		{"chat", `{"sid":"a","acc":3,"s":512}`, false, true, false},
		{"returns, read only", `{"sid":"a","acc":3,"s":1073743872}`, false, false, true},
		{"none", `{"sid":"a","acc":3,"s":0}`, false, false, false},
		{"expired: the marketplace will tell", `{"sid":"a","acc":3,"s":128,"exp":1}`, true, false, false},
		{"test token: not read", `{"sid":"a","acc":2,"s":0}`, true, true, true},
		{"not said", `{"sid":"a","acc":1}`, true, true, true},
	} {
		token, err := wildberries.ParseToken(jwt(tt.payload))
		if err != nil {
			t.Fatal(err)
		}
		got := [3]bool{token.Opens(wildberries.GroupFeedbacks), token.Opens(wildberries.GroupChat), token.Opens(wildberries.GroupReturns)}
		if want := [3]bool{tt.feedbacks, tt.chat, tt.returns}; got != want {
			t.Errorf("%s: opens %v, expected %v", tt.name, got, want)
		}
	}
}

func TestTokenCategories(t *testing.T) {
	for payload, want := range map[string]string{
		`{"sid":"a","acc":3,"s":1073744512}`: "Feedbacks and Questions, Buyers chat, Buyers returns, read only",
		`{"sid":"a","acc":1,"s":512}`:        "Buyers chat",
		`{"sid":"a","acc":1,"s":126}`:        "",
		`{"sid":"a","acc":2,"s":512}`:        "",
		`{"sid":"a","acc":1}`:                "",
	} {
		token, err := wildberries.ParseToken(jwt(payload))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(token.Categories(), ", "); got != want {
			t.Errorf("%s: %s, expected %s", payload, got, want)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, s := range []string{"", token(1), token(3), jwt(`{}`), jwt(`{"sid":"a","s":1e9,"acc":"3"}`), "a.b.c", "Bearer a.b.c", "..", "a.bnVsbA.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := wildberries.ParseToken(raw)
		if err == nil && (token.Seller == "" || strings.ContainsAny(raw+token.Seller, " \n\r\x00")) {
			t.Errorf("%q gives %+v", raw, token)
		}
		if err != nil && len(raw) > 30 && strings.Contains(err.Error(), raw[:30]) {
			t.Errorf("the error holds the token: %v", err)
		}
	})
}
