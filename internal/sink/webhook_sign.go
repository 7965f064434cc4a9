package sink

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// secretPrefix, minSecret: Standard Webhooks 1.0, "Signature scheme".
const (
	secretPrefix = "whsec_"
	minSecret    = 24
)

// parseSecret reads a signing secret. Its errors say nothing of what is in it.
func parseSecret(s string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(s, secretPrefix)
	if !ok {
		return nil, errors.New("does not begin with " + secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return nil, errors.New("is not base64 after " + secretPrefix)
	case len(key) < minSecret:
		return nil, fmt.Errorf("has %d bytes; Standard Webhooks asks for at least %d", len(key), minSecret)
	}
	return key, nil
}

// A signer signs with every key. It is kept for the next request: making one
// costs more than a signature.
type signer struct {
	macs []hash.Hash
	buf  []byte
	sum  [sha256.Size]byte
}

func newSigner(keys [][]byte) *signer {
	s := &signer{}
	for _, key := range keys {
		s.macs = append(s.macs, hmac.New(sha256.New, key))
	}
	return s
}

// sign returns the value of webhook-signature: one signature a key, nothing
// without a key.
func (s *signer) sign(id, timestamp string, body []byte) string {
	head := append(append(append(append(s.buf[:0], id...), '.'), timestamp...), '.')
	buf := head
	for i, mac := range s.macs {
		mac.Reset()
		mac.Write(head)
		mac.Write(body)
		if i > 0 {
			buf = append(buf, ' ')
		}
		buf = append(buf, "v1,"...)
		buf = base64.StdEncoding.AppendEncode(buf, mac.Sum(s.sum[:0]))
	}
	s.buf = buf
	return string(buf[len(head):])
}
