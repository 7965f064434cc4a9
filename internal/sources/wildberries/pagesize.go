package wildberries

import (
	"errors"
	"fmt"
	"sync"

	"syncd/internal/sources"
)

// pageSizes remember how many entries a page may be asked for where larger ones
// have failed: a quarter after each failure, down to one, so that an entry which
// the marketplace cannot send ends up alone; faster back up with each success,
// since most failures are outages and not about the page. They are kept in memory:
// a new process finds out anew. Safe for concurrent use.
type pageSizes struct {
	mu    sync.Mutex
	sizes map[string]pageSize // by stream and walk
}

type pageSize struct {
	most, successes int
	failed, row     int  // so many entries were asked for when it failed last, so often in a row; 0: it has worked since
	refused         bool // that failure was a refusal, after which the next try is a minute away and more
}

func sizeKey(q sources.Query) string { return q.Stream + "/" + string(q.Walk) }

// limit is how many of want entries to ask for.
func (s *pageSizes) limit(key string, want int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok := s.sizes[key]; ok {
		return min(want, size.most)
	}
	return want
}

// narrow is how many entries Skip steps over: one. Where larger pages have failed
// and a single entry has not been tried, it is too early.
func (s *pageSizes) narrow(key string) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, failing := s.sizes[key]; failing && max(size.most, size.failed) > 1 {
		return 0, fmt.Errorf("the page that fails is being narrowed down to the one entry that is to blame: the next try asks for %d of them, so wait for it", size.most)
	}
	return 1, nil
}

// failing is how many entries were asked for by the last request, and how many have
// failed in a row; 0: that one worked.
func (s *pageSizes) failing(key string) (failed, row int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes[key].failed, s.sizes[key].row
}

// elsewhere says whether it is time to look at something else: after a refusal at
// once, and else after every so many tries. triedOther counts that as a try, so that
// the next one is not.
func (s *pageSizes) elsewhere(key string, tries int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := s.sizes[key]
	return size.row > 0 && (size.refused || size.row%tries == 0)
}

func (s *pageSizes) triedOther(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok := s.sizes[key]; ok {
		size.row, size.refused = size.row+1, false
		s.sizes[key] = size
	}
}

// asked takes in how a request for n entries went.
func (s *pageSizes) asked(key string, n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, small := s.sizes[key]
	switch {
	case err == nil && small:
		size.successes++
		size.failed, size.row = 0, 0
		if size.most <<= 2 * size.successes; size.most >= 1<<20 {
			delete(s.sizes, key)
			return
		}
		s.sizes[key] = size
	case perhapsTooLarge(err):
		if s.sizes == nil {
			s.sizes = make(map[string]pageSize)
		}
		s.sizes[key] = pageSize{most: max(n/4, 1), failed: n, row: size.row + 1, refused: refused(err)}
	}
}

func refused(err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	return ok && e.Kind == sources.Rejected
}

// perhapsTooLarge says whether a smaller page might have come through: an answer
// that was too long, too slow or damaged, a server that broke down over it or
// refused it, none at all.
func perhapsTooLarge(err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	return ok && !e.Unsent && (e.Kind == sources.Temporary || e.Kind == sources.Unreadable || e.Kind == sources.Rejected)
}
