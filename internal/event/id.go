package event

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// Escape percent-encodes every byte of a marketplace's id other than
// A-Z a-z 0-9 _ : - (contract §6). The result never holds a dot, which Standard
// Webhooks uses as a separator, nor a slash, which separates parts of an id.
func Escape(id string) string {
	clean := true
	for i := 0; i < len(id) && clean; i++ {
		clean = plain(id[i])
	}
	if clean {
		return id
	}
	var b strings.Builder
	for i := 0; i < len(id); i++ {
		if c := id[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':' || c == '-'
}

// Path joins the escaped parts of an item's id or of a subject with slashes.
// Different parts never give the same path.
func Path(parts ...string) string {
	if len(parts) == 1 {
		return Escape(parts[0])
	}
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = Escape(p)
	}
	return strings.Join(escaped, "/")
}

// ItemEventID is the id of the one event about an immutable item.
func ItemEventID(account, stream, item string) string {
	return account + "/" + stream + "/" + item
}

// VersionEventID is the id of the event about version n (counted from 1) of an
// item whose meaning is f.
func VersionEventID(account, stream, item string, n uint64, f Fingerprint) string {
	var room [160]byte
	b := append(append(room[:0], account...), '/')
	b = append(append(b, stream...), '/')
	b = append(append(b, item...), '/')
	b = append(strconv.AppendUint(b, n, 10), '-')
	return string(hex.AppendEncode(b, f[:]))
}

// SchemaChangedID is the id of the event about the n-th change (counted from 1)
// of a stream's schema, which is that of the key at path.
func SchemaChangedID(account, stream string, n uint64, path string) string {
	sum := sha256.Sum256([]byte(path))
	return VersionEventID(account, stream, "syncd:schema_changed", n, Fingerprint(sum[:8]))
}

// SchemaSubject is what the schema changes of a stream are about.
func SchemaSubject(stream string) string { return "schema/" + stream }

// Source is the CloudEvents source of a stream.
func Source(marketplace, account, stream string) string {
	return "syncd://" + marketplace + "/" + account + "/" + stream
}

// PartitionKey is the unit of order: all events of one account about one subject.
func PartitionKey(account, subject string) string { return account + "/" + subject }
