package config

import (
	"fmt"
	"strconv"
)

// fieldName is the name of a top-level field of an item, as the marketplace spells it.
type fieldName string

// maxFieldName is in bytes, and far beyond what marketplaces call their fields.
const maxFieldName = 200

func (fieldName) about() about {
	return about{
		want:   "the name of a top-level field of an item",
		schema: schema{"type": "string", "minLength": 1, "maxLength": maxFieldName}, // in characters: Load is stricter
	}
}

func (n *fieldName) parse(s string) string {
	*n = fieldName(s)
	switch {
	case s == "":
		return "is empty"
	case len(s) > maxFieldName:
		return fmt.Sprintf("is longer than %d bytes", maxFieldName)
	}
	return ""
}

// maxFields is more than an item of any marketplace has.
const maxFields = 100

func (fieldName) most() (n int, what string) { return maxFields, "fields" }

// marketID is a number by which a marketplace names a business or a store.
type marketID int64

func (marketID) about() about {
	return about{want: "a whole number above 0", tags: "!!int", schema: schema{"type": "integer", "minimum": 1}}
}

func (v *marketID) parse(s string) string {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return clip(s) + " is out of range"
	}
	*v = marketID(n)
	return ""
}

// maxCampaigns is far more stores than a business has.
const maxCampaigns = 1000

func (marketID) most() (n int, what string) { return maxCampaigns, "stores" }
