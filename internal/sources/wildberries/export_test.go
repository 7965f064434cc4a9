package wildberries

// Classify is classify.
var Classify = classify

// SetPages makes a page of questions, and the most that one can be, small, so
// that a small world has many pages.
func (c *Client) SetPages(take, depth int) { c.take, c.depth = take, depth }
