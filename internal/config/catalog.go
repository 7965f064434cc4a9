package config

import "time"

// Catalog tells config what exists. Config knows no marketplace itself: the wiring, which alone does, fills this in.
type Catalog struct {
	Marketplaces []Marketplace
	// EventTypes are the types of the events that syncd causes by itself, in the name of no marketplace.
	EventTypes []string
	// CheckSchedule says what is wrong with a schedule expression. Nil accepts every expression.
	CheckSchedule func(expr string) error
	// OwnHeaders are the request headers of a webhook that are not for the configuration to set: globs, in lower case.
	OwnHeaders []string
}

// Marketplace is one value of an account's `marketplace`.
type Marketplace struct {
	Name    string
	Groups  []Group
	Streams []Stream
	// Keys are the keys of an account that not every marketplace has and this one does: business_id, campaigns.
	Keys []string
	// CheckToken says what is wrong with a token by its looks alone. Nil accepts every token. The token is cut out of
	// the error before anybody sees it.
	CheckToken func(token string) error
}

// Group is an API group of a marketplace: a key of an account's `tokens` and `endpoints`.
type Group struct {
	Name       string
	DefaultURL string
}

// Stream is a stream of a marketplace: a key of an account's `streams`.
type Stream struct {
	Name string
	// Schedule and Overlap are what an account gets that says nothing else. A stream with an Overlap of 0 has none, and the
	// key is refused.
	Schedule string
	Overlap  time.Duration
	// Off marks a stream that polls only where an account says `enabled: true`.
	Off bool
	// Sweeps says that the items of the stream can change. Elsewhere `sweep` and `ignore` are refused.
	Sweeps bool
	// EventTypes are the types of the events that the stream causes.
	EventTypes []string
}

func (c *Catalog) marketplace(name string) *Marketplace {
	for i := range c.Marketplaces {
		if c.Marketplaces[i].Name == name {
			return &c.Marketplaces[i]
		}
	}
	return nil
}

// names lists the marketplaces that an account can have.
func (c *Catalog) names() []string {
	names := make([]string, 0, len(c.Marketplaces))
	for _, m := range c.Marketplaces {
		names = append(names, m.Name)
	}
	return names
}

func (m *Marketplace) groupNames() []string {
	names := make([]string, 0, len(m.Groups))
	for _, g := range m.Groups {
		names = append(names, g.Name)
	}
	return names
}

func (m *Marketplace) stream(name string) *Stream {
	for i := range m.Streams {
		if m.Streams[i].Name == name {
			return &m.Streams[i]
		}
	}
	return nil
}

func (m *Marketplace) streamNames() []string {
	names := make([]string, 0, len(m.Streams))
	for _, s := range m.Streams {
		names = append(names, s.Name)
	}
	return names
}

// What a stream needs for some of its keys to make sense: values of the tag `stream`.
const (
	needsOverlap = "overlap"
	needsSweeps  = "sweeps"
)

// refuses says why a key that needs something is not for the stream, "" if it is.
func (s *Stream) refuses(needs string) string {
	switch {
	case needs == needsOverlap && s.Overlap == 0:
		return "stream " + s.Name + " has no overlap, since no poll of it starts from the newest item seen"
	case needs == needsSweeps && !s.Sweeps:
		return "the items of stream " + s.Name + " never change"
	}
	return ""
}
