package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// Lane is which part of a retry queue an entry is in. Live ones are in the order
// of their subject; the others stand outside it.
type Lane int

// The lanes.
const (
	Live    Lane = iota
	Replay       // asked for by `syncd replay`
	Retried      // a dead letter that the operator retries
)

// lanePrefixes go before a partition key in the file; no account's name begins
// with "!".
var lanePrefixes = [...]string{Live: "", Replay: "!p/", Retried: "!d/"}

// Class is a sort of heads that are due on their own.
type Class int

// The classes.
const (
	FirstTry Class = iota // live, never tried: the event before it was settled
	Again                 // live, tried before
	Aside                 // of the lanes Replay and Retried
)

// Failed is an event of a sink's retry queue. Later events of a subject that is in
// the queue join it too, with Attempts 0, and wait their turn.
type Failed struct {
	Seq      uint64
	Lane     Lane
	Key      string // partition key
	Attempts int
	Refused  int       // attempts that were refused for good, and count
	First    time.Time // the event's first attempt; zero: none yet
	Last     time.Time // its last attempt; zero: none
	Next     time.Time // when to try again
	Status   int
	Error    string
	Batch    uint64 // the first sequence of the saved batch that this head leads; 0: it goes alone
	Reason   string // of a dead letter: why it was given up; the queue does not keep it
}

// The reasons of dead letters.
const (
	ReasonRefused     = "refused"      // by answers that are permanent
	ReasonGaveUp      = "gave_up"      // it failed for too long
	ReasonSinkRemoved = "sink_removed" // it was never tried, or not to its end
)

// QueueKey is what a head is filed under: Heads goes on behind it.
func (f Failed) QueueKey() string { return lanePrefixes[f.Lane] + f.Key }

// headFormat is the first byte of a head.
const headFormat = 1

// head is the oldest waiting event of a lane's subject. It is written for each
// attempt and each event that moves up, so it is kept in a compact form: the
// format, eight uvarints in the order of the fields, and the error.
type head struct {
	seq, batch                uint64
	attempts, refused, status uint64
	first, last, next         uint64 // Unix milliseconds; 0: none
	err                       []byte
}

// leads reports whether the head is due on its own: all are but those that go
// with the first event of their batch.
func (h *head) leads() bool { return h.batch == 0 || h.batch == h.seq }

func (h *head) encode() []byte {
	b := append(make([]byte, 0, 48+len(h.err)), headFormat)
	for _, n := range [...]uint64{h.seq, h.batch, h.attempts, h.refused, h.status, h.first, h.last, h.next} {
		b = binary.AppendUvarint(b, n)
	}
	return append(b, h.err...)
}

// decodeHead reads a head. Its error is a part of raw, so it lives no longer than
// the transaction.
func decodeHead(raw []byte) (h head, err error) {
	if len(raw) == 0 || raw[0] != headFormat {
		return h, errors.New("a head of a format that is not known")
	}
	raw = raw[1:]
	for _, n := range [...]*uint64{&h.seq, &h.batch, &h.attempts, &h.refused, &h.status, &h.first, &h.last, &h.next} {
		size := 0
		if *n, size = binary.Uvarint(raw); size <= 0 {
			return h, errors.New("a head that is cut short")
		}
		raw = raw[size:]
	}
	h.err = raw
	return h, nil
}

func headTime(t time.Time) uint64 { return uint64(max(milli(t), 0)) }

func newHead(f *Failed) head {
	return head{seq: f.Seq, attempts: uint64(max(f.Attempts, 0)), refused: uint64(max(f.Refused, 0)), status: uint64(max(f.Status, 0)),
		first: headTime(f.First), last: headTime(f.Last), next: headTime(f.Next), err: []byte(f.Error)}
}

func (h *head) failed(queueKey []byte) Failed {
	lane, key := parseQueueKey(queueKey)
	f := Failed{Seq: h.seq, Lane: lane, Key: key, Attempts: int(h.attempts), Refused: int(h.refused), Status: int(h.status), Error: string(h.err),
		First: fromMilli(int64(h.first)), Last: fromMilli(int64(h.last)), Next: time.UnixMilli(int64(h.next)).UTC()}
	if h.batch == h.seq {
		f.Batch = h.batch
	}
	return f
}

func parseQueueKey(b []byte) (Lane, string) {
	lane := laneOf(b)
	return lane, string(b[len(lanePrefixes[lane]):])
}

func laneOf(queueKey []byte) Lane {
	for _, lane := range []Lane{Replay, Retried} {
		if bytes.HasPrefix(queueKey, []byte(lanePrefixes[lane])) {
			return lane
		}
	}
	return Live
}

func (h *head) class(queueKey []byte) Class {
	switch {
	case laneOf(queueKey) != Live:
		return Aside
	case h.attempts == 0:
		return FirstTry
	}
	return Again
}

// dueKey is where the time of a head is filed.
func (h *head) dueKey(queueKey []byte) []byte {
	b := append(make([]byte, 0, 9+len(queueKey)), byte(h.class(queueKey)))
	return append(binary.BigEndian.AppendUint64(b, h.next), queueKey...)
}

// dueQueueKey is the queue key in a key of the bucket due.
func dueQueueKey(due []byte) []byte { return due[9:] }

func followerPrefix(queueKey []byte) []byte {
	return append(append(make([]byte, 0, len(queueKey)+9), queueKey...), 0)
}

func followerKey(queueKey []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(followerPrefix(queueKey), seq)
}

// queue is one sink's retry queue inside a transaction.
type queue struct {
	tx                                           *bolt.Tx
	sink                                         string
	heads, due, followers, waiting, batches, log *bolt.Bucket
}

// readQueue returns a sink's retry queue; false: nothing was ever in it.
func readQueue(tx *bolt.Tx, sink string) (*queue, bool) {
	root := nested(tx, bucketRetries, sink)
	if root == nil {
		return nil, false
	}
	return &queue{tx: tx, sink: sink, log: tx.Bucket(bucketEvents), heads: root.Bucket(bucketHeads), due: root.Bucket(bucketDue),
		followers: root.Bucket(bucketFollowers), waiting: root.Bucket(bucketWaiting), batches: root.Bucket(bucketBatches)}, true
}

// openQueue returns a sink's retry queue, making it where it is missing.
func openQueue(tx *bolt.Tx, sink string) (*queue, error) {
	if q, ok := readQueue(tx, sink); ok {
		return q, nil
	}
	for _, part := range [][]byte{bucketHeads, bucketDue, bucketFollowers, bucketWaiting, bucketBatches} {
		if _, err := ensure(tx, bucketRetries, sink, string(part)); err != nil {
			return nil, err
		}
	}
	q, _ := readQueue(tx, sink)
	return q, nil
}

// head returns the head of a lane's subject; false: nothing of it waits.
func (q *queue) head(key []byte) (head, bool, error) {
	raw := q.heads.Get(key)
	if raw == nil {
		return head{}, false, nil
	}
	h, err := decodeHead(raw)
	if err != nil {
		return head{}, false, fmt.Errorf("retry queue of %s: %s: %w", q.sink, key, err)
	}
	return h, true, nil
}

// setHead puts a head in place of the one that was there, nil: none, and files
// when it is due.
func (q *queue) setHead(key []byte, old, h *head) error {
	var was, is []byte
	if old != nil && old.leads() {
		was = old.dueKey(key)
	}
	if h.leads() {
		is = h.dueKey(key)
	}
	if !bytes.Equal(was, is) {
		if was != nil {
			if err := q.due.Delete(was); err != nil {
				return err
			}
		}
		if is != nil {
			if err := q.due.Put(is, []byte{}); err != nil {
				return err
			}
		}
	}
	return q.heads.Put(key, h.encode())
}

// has reports whether an event waits in a lane.
func (q *queue) has(lane Lane, key []byte, seq uint64) (bool, error) {
	if lane != Retried {
		return q.waiting.Get(seqKey(seq)) != nil, nil
	}
	h, found, err := q.head(key)
	return err == nil && found && (h.seq == seq || q.followers.Get(followerKey(key, seq)) != nil), err
}

// count adds to the number of events that wait. The sequence of the bucket keeps
// it: bbolt can count keys only by walking them.
func (q *queue) count(d int) error {
	n := int(q.waiting.Sequence()) + d
	return q.waiting.SetSequence(uint64(max(n, 0)))
}

// enqueue puts an event at the end of its lane's subject, as a member of a batch
// or, 0, on its own, and reports whether it was not there. One that is there as
// a head takes over the attempts; any other that is there stays as it is.
func (q *queue) enqueue(f *Failed, batch uint64) (bool, error) {
	key := []byte(f.QueueKey())
	h := newHead(f)
	old, found, err := q.head(key)
	switch {
	case err != nil:
		return false, err
	case found && old.seq == f.Seq:
		if h.batch = batch; batch == 0 {
			h.batch = old.batch
		}
		return false, q.setHead(key, &old, &h)
	}
	if found { // it may follow it
		if there, err := q.has(f.Lane, key, f.Seq); err != nil || there {
			return false, err
		}
	}
	if err := q.count(1); err != nil {
		return false, err
	}
	if f.Lane != Retried { // a dead letter needs no log
		if err := q.waiting.Put(seqKey(f.Seq), []byte{}); err != nil {
			return false, err
		}
	}
	if found {
		first := []byte{} // what was tried in a batch remembers since when
		if h.first != 0 {
			first = binary.AppendUvarint(nil, h.first)
		}
		return true, q.followers.Put(followerKey(key, f.Seq), first)
	}
	h.batch = batch
	return true, q.setHead(key, nil, &h)
}

// remove takes an event out of its lane, and reports whether it was there. The
// next event of its subject is due at now.
func (q *queue) remove(lane Lane, key []byte, seq uint64, now time.Time) (bool, error) {
	h, found, err := q.head(key)
	if err != nil || !found {
		return false, err
	}
	if h.seq == seq {
		err = q.promote(key, &h, now)
	} else {
		k := followerKey(key, seq)
		if q.followers.Get(k) == nil {
			return false, nil
		}
		err = q.followers.Delete(k)
	}
	if err != nil {
		return false, err
	}
	if lane != Retried {
		if err := q.waiting.Delete(seqKey(seq)); err != nil {
			return false, err
		}
	}
	return true, q.count(-1)
}

// promote puts the next event of a subject in the place of its head.
func (q *queue) promote(key []byte, h *head, now time.Time) error {
	prefix := followerPrefix(key)
	k, v := q.followers.Cursor().Seek(prefix)
	if bytes.HasPrefix(k, prefix) {
		next := head{seq: binary.BigEndian.Uint64(k[len(prefix):]), next: headTime(now)}
		next.first, _ = binary.Uvarint(v) // 0 where there is none
		if err := q.followers.Delete(bytes.Clone(k)); err != nil {
			return err
		}
		return q.setHead(key, h, &next)
	}
	if h.leads() {
		if err := q.due.Delete(h.dueKey(key)); err != nil {
			return err
		}
	}
	return q.heads.Delete(key)
}

// record takes over the attempts of heads. What is no head any more is passed over.
func (q *queue) record(attempts []Failed) error {
	for i := range attempts {
		f := &attempts[i]
		key := []byte(f.QueueKey())
		old, found, err := q.head(key)
		if err != nil {
			return err
		}
		if !found || old.seq != f.Seq {
			continue
		}
		h := newHead(f)
		h.batch = old.batch
		if err := q.setHead(key, &old, &h); err != nil {
			return err
		}
	}
	return nil
}

// liveKey returns the queue key of an event of the log in the lane Live.
func (q *queue) liveKey(seq uint64) ([]byte, error) {
	h, err := event.ParseHeader(q.log.Get(seqKey(seq)))
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", seq, err)
	}
	return []byte(h.PartitionKey), nil
}
