package poller

import "testing"

// SetPiece makes transactions go through n items until the test ends.
func SetPiece(t *testing.T, n int) {
	was := piece
	piece = n
	t.Cleanup(func() { piece = was })
}
