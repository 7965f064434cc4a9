package wildberries

// tally tells sets of entries apart without keeping them: how many there are,
// and the sum of their keys.
type tally struct {
	N   int    `json:"n"`
	Sum uint64 `json:"sum"`
}

func (t *tally) add(keys []uint64) {
	t.N += len(keys)
	for _, k := range keys {
		t.Sum += k
	}
}

// Streams of two lists between which items move (claims, pins) are read in this
// order. An item that moves the usual way, from the first list to the second, is
// seen in either. One that moves the other way between the two readings is in
// neither; then the second list has lost it since an earlier run, and its tally
// has changed. If so the first list is read once more, and else two lists are
// enough.
const (
	listFirst = iota
	listSecond
	listFirstAgain
)
