package wildberries

// Classify is classify.
var Classify = classify

// SetPages makes pages of questions and feedbacks small, so that a small world has
// many of them: entries of a page, those that can be skipped, and both together.
func (c *Client) SetPages(take, skip, depth int) {
	for _, d := range c.dated {
		d.take, d.skip, d.depth = take, skip, depth
	}
}

// SetLeaf makes the parts of a census small, so that a small shop has many of them.
func (c *Client) SetLeaf(items int) {
	for _, d := range c.dated {
		d.leaf = items
	}
}

// SetLimits makes small pages of claims and pins.
func (c *Client) SetLimits(claims, pins int) { c.claimsLimit, c.pinsLimit = claims, pins }
