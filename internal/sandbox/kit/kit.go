// Package kit is what the simulated marketplaces have in common: generators, time that passes when somebody looks, the
// journal of what was shown, answers, and faults. It knows no marketplace and imports nothing of syncd's.
package kit

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// Stream is the generator for one purpose. Each purpose has its own, so that more of one thing (a new kind of item, a
// fault) does not change what another one draws.
func Stream(seed uint64, purpose string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose)) // a hash does not fail
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// Chance is true with probability p.
func Chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

// Pick draws one of from, which has at least one.
func Pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// UUID draws a version 4 UUID.
func UUID(r *rand.Rand) string {
	b := Bytes(r, 16)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// HexID draws n bytes in hexadecimal.
func HexID(r *rand.Rand, n int) string { return hex.EncodeToString(Bytes(r, n)) }

// Bytes draws n bytes.
func Bytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// HistoryTimes draws the n moments of a history that ends before the epoch, ascending, in nanoseconds.
func HistoryTimes(r *rand.Rand, n int, epoch int64, span time.Duration) []int64 {
	times := make([]int64, n)
	for i := range times {
		times[i] = epoch - 1 - r.Int64N(max(1, int64(span)))
	}
	slices.Sort(times)
	return times
}

// Lateness draws by how many nanoseconds a thing appears late. It always draws twice, so that shares do not shift what is
// drawn next.
func Lateness(r *rand.Rand, share float64, by time.Duration) int64 {
	hit, delay := r.Float64() < share, r.Int64N(max(1, int64(by)))
	if !hit || by == 0 {
		return 0
	}
	return 1 + delay
}
