package wildberries

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// TokenType is the `acc` field of a token.
type TokenType int

// The token types (dev.wildberries.ru, "About the token").
const (
	Base     TokenType = 1
	Test     TokenType = 2
	Personal TokenType = 3
	Service  TokenType = 4
)

func (t TokenType) String() string {
	switch t {
	case Base:
		return "base"
	case Test:
		return "test"
	case Personal:
		return "personal"
	case Service:
		return "service"
	}
	return fmt.Sprintf("unknown (acc=%d)", int(t))
}

// Token is what the payload of a token says. Nothing is verified but its form:
// the marketplace alone has the key.
type Token struct {
	Type    TokenType
	Seller  string    // `sid`: who shares the budget
	Scopes  uint64    // `s`: bit n opens category n
	Scoped  bool      // `s` is there
	Expires time.Time // `exp`; zero if absent
}

// ParseToken reads the payload of a token, which is a JWT. Errors never hold any
// of it.
func ParseToken(raw string) (Token, error) {
	if len(raw) >= 7 && strings.EqualFold(raw[:7], "Bearer ") {
		return Token{}, errors.New(`the token begins with "Bearer ": Wildberries wants it bare`)
	}
	// It becomes a header as it is.
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Token{}, errors.New("not a Wildberries token: it holds a space, a line break or another character that no token has")
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return Token{}, errors.New("not a Wildberries token: expected a JWT, three parts with dots between them")
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return Token{}, errors.New("not a Wildberries token: its second part is not base64url")
	}
	var p struct {
		Acc json.Number  `json:"acc"`
		SID string       `json:"sid"`
		S   *json.Number `json:"s"`
		Exp json.Number  `json:"exp"`
		T   any          `json:"t"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return Token{}, errors.New("not a Wildberries token: its second part is not the JSON object that it should be (acc, sid, s, exp)")
	}
	if p.SID == "" || len(p.SID) > 100 || strings.ContainsFunc(p.SID, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
		return Token{}, errors.New("not a Wildberries token: it does not say whose it is (sid)")
	}
	t := Token{Seller: p.SID}
	if n, err := p.Acc.Int64(); err == nil && n == int64(int32(n)) {
		t.Type = TokenType(n)
	}
	if p.T == true { // both fields mark a Test token; where they disagree the lower limits are the safe ones
		t.Type = Test
	}
	if p.S != nil {
		if n, err := strconv.ParseUint(p.S.String(), 10, 64); err == nil {
			t.Scopes, t.Scoped = n, true
		}
	}
	if f, err := p.Exp.Float64(); err == nil && f > 0 && f < 1e11 {
		t.Expires = time.Unix(int64(f), 0).UTC()
	}
	return t, nil
}

// A category is what a token can be made for: a position in `s`, and its name in
// the seller's portal (dev.wildberries.ru, "About the token").
type category struct {
	bit  uint
	name string
}

// categories are those of the API groups.
var categories = map[string]category{
	GroupFeedbacks: {7, "Feedbacks and Questions"},
	GroupChat:      {9, "Buyers chat"},
	GroupReturns:   {11, "Buyers returns"},
}

// readOnly tokens may not write, and this package never does.
var readOnly = category{30, "read only"}

// Opens reports whether the token may be used for an API group. A Test token's
// scopes are not read (they are 0), nor are scopes that are not there: then the
// marketplace will tell, as it tells of a token that has expired.
func (t Token) Opens(group string) bool {
	return t.Type == Test || !t.Scoped || t.has(categories[group])
}

func (t Token) has(c category) bool { return t.Scopes&(1<<c.bit) != 0 }

// Categories lists what the token may be used for, by name, as far as it concerns
// customer communication. Nothing for a Test token: its scopes are not read.
func (t Token) Categories() []string {
	if t.Type == Test {
		return nil
	}
	var out []string
	for _, c := range []category{categories[GroupFeedbacks], categories[GroupChat], categories[GroupReturns], readOnly} {
		if t.has(c) {
			out = append(out, c.name)
		}
	}
	return out
}
