package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Key is an opaque text that differs when anything about the account does: a setting, a token, or where a token comes from.
// Secrets are part of it by their hash alone.
func (a Account) Key() string {
	var secrets []Secret
	for _, group := range slices.Sorted(maps.Keys(a.Tokens)) {
		secrets = append(secrets, a.Tokens[group])
	}
	return keyOf(a, secrets)
}

// Key is an opaque text that differs when anything about the sink does: a setting, a signing secret, or where a secret comes
// from. Secrets are part of it by their hash alone.
func (s Sink) Key() string {
	if s.Webhook == nil {
		return keyOf(s, nil)
	}
	return keyOf(s, s.Webhook.Secrets)
}

// keyOf is a hash of what a value renders as in JSON, where secrets show nothing, and of these.
func keyOf(v any, secrets []Secret) string {
	hashes := make([][sha256.Size]byte, len(secrets))
	sources := make([]string, len(secrets))
	for i, s := range secrets {
		hashes[i], sources[i] = sha256.Sum256([]byte(s.Reveal())), s.Source()
	}
	text, err := json.Marshal(struct {
		Value   any
		Hashes  [][sha256.Size]byte
		Sources []string
	}{v, hashes, sources})
	if err != nil {
		panic("config: " + err.Error()) // no field has a type or a value that JSON lacks
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Patterns is the selection as JSON that only ParseSelect reads. Equal selections give equal bytes.
func (s Select) Patterns() json.RawMessage {
	text, err := json.Marshal(s)
	if err != nil {
		panic("config: " + err.Error()) // nothing but lists of text
	}
	return text
}

// ParseSelect takes what Patterns gave. Nothing at all selects everything.
func ParseSelect(patterns json.RawMessage) (Select, error) {
	var s Select
	if len(patterns) == 0 {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(patterns))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Select{}, fmt.Errorf("read the patterns of a sink: %w", err)
	}
	return s, nil
}
