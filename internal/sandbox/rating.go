package sandbox

import (
	"math"
	"net/http"
	"time"

	"syncd/internal/sandbox/kit"
)

// serveRating answers GET /api/common/v1/rating, which only Service tokens may ask. The real rating weighs feedbacks by
// their age; here it is their mean.
func serveRating(c *call) answer {
	var data struct {
		Count  int     `json:"feedbackCount"`
		Rating float64 `json:"valuation"`
	}
	sum := 0
	c.world.lock(c.now)
	for _, l := range c.world.feedbacks.lists {
		for _, n := range l {
			data.Count++
			sum += int(n.rating)
		}
	}
	c.world.mu.Unlock()
	if data.Count > 0 {
		data.Rating = math.Round(100*float64(sum)/float64(data.Count)) / 100
	}
	return kit.JSON(http.StatusOK, typeJSON, data)
}

// wrongType answers a token of a type for which the method is not (general document, response 403).
func (s *Sandbox) wrongType(kind tokenKind, now time.Time) answer {
	detail := string(kind) + " token is not allowed"
	p := s.gateway(http.StatusForbidden, "forbidden", detail, "s2s-common", now)
	p.Code = detail + " for this path"
	return kit.JSON(http.StatusForbidden, typeProblem, p)
}
