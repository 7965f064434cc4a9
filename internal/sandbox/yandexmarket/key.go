package yandexmarket

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"syncd/internal/sandbox/kit"
)

// Scope is what a key may do.
type Scope string

// The scopes that the methods served here know. A key may have others too.
const (
	ScopeAll            Scope = "all-methods"
	ScopeAllReadOnly    Scope = "all-methods:read-only"
	ScopeCommunication  Scope = "communication"
	ScopeOrders         Scope = "inventory-and-order-processing"
	ScopeOrdersReadOnly Scope = "inventory-and-order-processing:read-only"
	ScopePricing        Scope = "pricing"
)

// wire is the scope as POST v2/auth/token writes it.
func (s Scope) wire() string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ":", "_").Replace(string(s)))
}

// KeySpec says what key [Market.MintKey] makes.
type KeySpec struct {
	// Business is the cabinet that it is of. Default: the first.
	Business int64
	// Name is the key's. Default: "syncd".
	Name string
	// Scopes are what it may do. Default: all-methods:read-only.
	Scopes []Scope
}

// key is an Api-Key. The Market's mutex guards it.
type key struct {
	business *Business
	name     string
	scopes   []Scope
	revoked  bool
}

// MintKey makes an Api-Key. A business has at most 30; nothing here holds to that. It panics if there is no such business.
func (m *Market) MintKey(spec KeySpec) string {
	b := m.byID[spec.Business]
	if spec.Business == 0 && len(m.businesses) > 0 {
		b = m.businesses[0]
	}
	if b == nil {
		panic(fmt.Sprintf("yandexmarket: a key for business %d, which does not exist", spec.Business))
	}
	if spec.Name == "" {
		spec.Name = "syncd"
	}
	if len(spec.Scopes) == 0 {
		spec.Scopes = []Scope{ScopeAllReadOnly}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.minted++
	r := kit.Stream(m.seed, fmt.Sprintf("yandex market key %d of %d", m.minted, b.spec.ID))
	token := keyPrefix + kit.HexID(r, 20) + ":" + kit.HexID(r, 4)
	m.keys[token] = &key{business: b, name: spec.Name, scopes: slices.Clone(spec.Scopes)}
	return token
}

// keyPrefix and keyLength are the form of a key, as examples have it.
const (
	keyPrefix = "ACMA:"
	keyLength = len(keyPrefix) + 40 + 1 + 8
)

// RevokeKey deletes a key: its requests are answered 401 from now on.
func (m *Market) RevokeKey(token string) { m.changeKey(token, func(k *key) { k.revoked = true }) }

// SetScopes changes what a key may do, at once. (The real one takes up to 10 minutes.)
func (m *Market) SetScopes(token string, scopes ...Scope) {
	m.changeKey(token, func(k *key) { k.scopes = slices.Clone(scopes) })
}

func (m *Market) changeKey(token string, change func(*key)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.keys[token]
	if k == nil {
		panic("yandexmarket: no such key")
	}
	change(k)
}

// The texts of 401.
const (
	keyMissing   = "Api-Key token is not specified"
	keyInvalid   = "Api-Key token is invalid"
	keyRevoked   = "Api-Key token is revoked"
	keyBadPrefix = "Api-Key token prefix invalid"
	keyBadLength = "Api-Key token length invalid"
)

// authenticate finds out whose request it is; text: why it is nobody's.
func (m *Market) authenticate(r *http.Request) (k key, text string) {
	token := r.Header.Get("Api-Key")
	switch {
	case token == "": // OAuth tokens are none of ours
		return key{}, keyMissing
	case strings.HasPrefix(token, "Bearer ") || !strings.HasPrefix(token, keyPrefix):
		return key{}, keyBadPrefix
	case len(token) != keyLength:
		return key{}, keyBadLength
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch k := m.keys[token]; {
	case k == nil:
		return key{}, keyInvalid
	case k.revoked:
		return key{}, keyRevoked
	default:
		return *k, ""
	}
}

// may says whether a key's scopes cover a method.
func (k key) may(rt route) bool {
	return rt.scopes == nil || slices.ContainsFunc(rt.scopes, func(s Scope) bool { return slices.Contains(k.scopes, s) })
}
