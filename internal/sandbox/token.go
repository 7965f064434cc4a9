package sandbox

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// Token types, the values of the claim `acc` (api-information, "About the token").
const (
	AccBase     = 1
	AccTest     = 2
	AccPersonal = 3
	AccService  = 4
)

// Scopes of a token: bits of the claim `s`.
const (
	ScopeContent   uint64 = 1 << 1
	ScopeFeedbacks uint64 = 1 << 7 // feedbacks, questions and pins
	ScopeChat      uint64 = 1 << 9
	ScopeReturns   uint64 = 1 << 11

	scopeReadOnly uint64 = 1 << 30
)

// tokenLife is "valid for 180 days after creation".
const tokenLife = 180 * 24 * time.Hour

// TokenSpec says what [Sandbox.MintToken] puts in a token.
type TokenSpec struct {
	// Seller is the sid. One that the sandbox does not know gives a well-formed token that is answered 401.
	Seller string
	// Acc is the token type. Default: [AccPersonal].
	Acc int
	// Scopes are the bits of `s`. Default: feedbacks, chat and returns; a Test token has none, as recorded.
	Scopes uint64
	// ReadOnly sets bit 30: writing methods answer 403.
	ReadOnly bool
	// Expires is `exp`. Default: 180 days after the epoch.
	Expires time.Time
	// For is the claim `for`. Default: what the token type has: "self" for Personal, "asid:<id>" for Service, none for
	// the others.
	For string
	// Payload sets fields of the payload over all that, or, with nil, takes them away: {"s": nil} is a token without scopes.
	Payload map[string]any
}

// tokenKind is the type of a token as far as budgets tell them apart.
type tokenKind string

const (
	kindBase     tokenKind = "base" // Test and unknown types too
	kindPersonal tokenKind = "personal"
	kindService  tokenKind = "service"
)

// claims is the payload of the JWT. The four last ones are not documented but were recorded.
type claims struct {
	ID  string `json:"id"`
	S   uint64 `json:"s"`
	Sid string `json:"sid"`
	Exp int64  `json:"exp"`
	Acc int    `json:"acc"`
	T   bool   `json:"t"`
	For string `json:"for,omitempty"`
	Ent int    `json:"ent"`
	Iid int    `json:"iid"`
	Oid int    `json:"oid"`
	Uid int    `json:"uid"`
}

func (c claims) kind() tokenKind {
	switch c.Acc {
	case AccPersonal:
		return kindPersonal
	case AccService:
		return kindService
	}
	return kindBase
}

// allows says whether the token opens a scope. A Test token carries none and opens feedbacks-api alone, whose sandbox host
// is the only documented one; on the chat host it was recorded as refused.
func (c claims) allows(scope uint64) bool {
	if c.Acc == AccTest {
		return scope&^ScopeFeedbacks == 0
	}
	return c.S&scope == scope
}

// deriveKey makes the sandbox's ES256 key from the seed, so that the tokens of a seed stay valid from run to run. One seed
// in 2^32 has a hash outside the curve's order and is refused.
func deriveKey(seed uint64) (*ecdsa.PrivateKey, error) {
	scalar := sha256.Sum256(binary.BigEndian.AppendUint64(nil, seed))
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
}

// MintToken makes a token in the form of the real ones: a JWT signed with ES256. The same specification gives the same
// token in every sandbox of one seed and epoch.
func (s *Sandbox) MintToken(spec TokenSpec) string {
	if spec.Acc == 0 {
		spec.Acc = AccPersonal
	}
	if spec.Scopes == 0 && spec.Acc != AccTest {
		spec.Scopes = ScopeFeedbacks | ScopeChat | ScopeReturns
	}
	if spec.ReadOnly {
		spec.Scopes |= scopeReadOnly
	}
	if spec.Expires.IsZero() {
		spec.Expires = s.epoch.Add(tokenLife)
	}
	r := kit.Stream(s.seed, fmt.Sprintf("token %s %d %d %d %s", spec.Seller, spec.Acc, spec.Scopes, spec.Expires.Unix(), spec.For))
	if spec.For == "" {
		switch spec.Acc {
		case AccPersonal:
			spec.For = "self"
		case AccService:
			spec.For = "asid:" + kit.UUID(r)
		}
	}
	owner := 1_000_000 + r.IntN(9_000_000)
	c := claims{
		ID: kit.UUID(r), S: spec.Scopes, Sid: spec.Seller, Exp: spec.Expires.Unix(), Acc: spec.Acc, T: spec.Acc == AccTest,
		For: spec.For, Ent: 1, Iid: owner, Oid: owner, Uid: owner,
	}
	signed := segment(map[string]string{"alg": "ES256", "kid": "20250904v1", "typ": "JWT"}) + "." + segment(c.with(spec.Payload))
	return signed + "." + base64.RawURLEncoding.EncodeToString(s.sign(signed))
}

// with lays fields over the payload.
func (c claims) with(fields map[string]any) any {
	if len(fields) == 0 {
		return c
	}
	var all map[string]any
	dec := json.NewDecoder(bytes.NewReader(kit.Render(c)))
	dec.UseNumber()
	if err := dec.Decode(&all); err != nil {
		panic(fmt.Sprintf("sandbox: read token: %v", err)) // it was just written
	}
	for name, v := range fields {
		all[name] = v
		if v == nil {
			delete(all, name)
		}
	}
	return all
}

func segment(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sandbox: encode token: %v", err)) // strings and numbers always encode
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// sign gives the signature as JWT wants it: r and s, 32 bytes each. Without a random source it is deterministic (RFC 6979).
func (s *Sandbox) sign(text string) []byte {
	digest := sha256.Sum256([]byte(text))
	der, err := s.key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		panic(fmt.Sprintf("sandbox: sign token: %v", err)) // a valid key and a digest of the right size always sign
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		panic(fmt.Sprintf("sandbox: sign token: %v", err))
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out
}

// verify reads a token. The error's text is the end of the 401's detail, in golang-jwt's words, which the documented
// example ("could not base64 decode signature") quotes.
func (s *Sandbox) verify(token string, now time.Time) (claims, error) {
	s.mu.Lock()
	c, ok := s.verified[token]
	s.mu.Unlock()
	if !ok {
		var err error
		if c, err = s.parse(token); err != nil {
			return claims{}, err
		}
		s.mu.Lock()
		s.verified[token] = c
		s.mu.Unlock()
	}
	if now.Unix() >= c.Exp {
		return claims{}, fmt.Errorf("token has invalid claims: token is expired")
	}
	return c, nil
}

func (s *Sandbox) parse(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, fmt.Errorf("token is malformed: token contains an invalid number of segments")
	}
	var raw [3][]byte
	for i, name := range [...]string{"header", "claim", "signature"} {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(parts[i]); err != nil {
			return claims{}, fmt.Errorf("token is malformed: could not base64 decode %s: %w", name, err)
		}
	}
	var header struct {
		Alg string `json:"alg"`
	}
	if err := json.Unmarshal(raw[0], &header); err != nil {
		return claims{}, fmt.Errorf("token is malformed: could not JSON decode header: %w", err)
	}
	if header.Alg != "ES256" {
		return claims{}, fmt.Errorf("token signature is invalid: signing method %s is invalid", header.Alg)
	}
	if len(raw[2]) != 64 {
		return claims{}, fmt.Errorf("token signature is invalid: crypto/ecdsa: verification error")
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, sig := new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:])
	if !ecdsa.Verify(&s.key.PublicKey, digest[:], r, sig) {
		return claims{}, fmt.Errorf("token signature is invalid: crypto/ecdsa: verification error")
	}
	var c claims
	if err := json.Unmarshal(raw[1], &c); err != nil {
		return claims{}, fmt.Errorf("token is malformed: could not JSON decode claim: %w", err)
	}
	return c, nil
}
