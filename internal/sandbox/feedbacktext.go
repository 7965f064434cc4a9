package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// goods is a product with what only feedbacks show of it.
type goods struct {
	product
	color, subject string
	subjectID      int
}

func newGoods(r *rand.Rand, products []product) []*goods {
	out := make([]*goods, len(products))
	for i, p := range products {
		s := kit.Pick(r, subjects)
		out[i] = &goods{product: p, color: kit.Pick(r, colors), subject: s.name, subjectID: s.id}
	}
	return out
}

// content is what a buyer wrote: the part of a feedback that does not change.
type content struct {
	text, pros, cons string
	photos           []string // addresses up to the file's name
	video            string   // the same; "": none
	seconds          int      // of the video
	bables           []string
	user, fits       string
	shk              int
	bought           int64 // when; 0: not known
	signature        uint64
	reply            string // what the seller answers, if left to himself
}

// said draws what the feedback says.
func (n *feedback) said() content {
	if n.hand != nil && n.hand.said != nil {
		return *n.hand.said
	}
	r := rand.New(rand.NewPCG(n.seed, 1))
	c := content{
		user: kit.Pick(r, buyerNames), fits: "", shk: 10_000_000_000 + r.IntN(30_000_000_000), signature: r.Uint64(),
		bought: n.created - int64(3*24*time.Hour) - r.Int64N(int64(20*24*time.Hour)), reply: kit.Pick(r, thanks),
	}
	happy := n.rating > 3
	if !happy {
		c.reply = kit.Pick(r, apologies)
	}
	if n.goods.size != "0" {
		c.fits = kit.Pick(r, []string{"ok", "ok", "ok", "smaller", "bigger"})
	}
	if kit.Chance(r, 0.01) {
		c.bought = 0
	}
	if kit.Chance(r, 0.5) {
		c.bables = draw(r, pools[happy].tags, 1+r.IntN(3))
	}
	if !n.worded {
		return c
	}
	c.text = strings.Join(draw(r, pools[happy].sentences, 1+r.IntN(6)), kit.Pick(r, []string{" ", " ", " ", "\n"}))
	if kit.Chance(r, 0.6) {
		c.pros = strings.Join(draw(r, prosOfGoods, 1+r.IntN(3)), ", ")
	}
	if kit.Chance(r, 0.4) {
		c.cons = strings.Join(draw(r, consOfGoods, 1+r.IntN(2)), ", ")
	}
	if kit.Chance(r, 0.5) {
		c.addPhotos(r, 1+r.IntN(3))
	}
	if kit.Chance(r, 0.05) {
		c.video, c.seconds = fmt.Sprintf("https://videofeedback0%d.wbbasket.ru/%s/", 1+r.IntN(3), kit.UUID(r)), 3+r.IntN(50)
	}
	if kit.Chance(r, 0.1) && len(c.photos) > 0 {
		c.text = "" // photos alone make it more than a rating
	}
	return c
}

func (c *content) addPhotos(r *rand.Rand, n int) {
	for range n {
		part, id := 100_000+r.IntN(200_000), 100_000_000+r.IntN(900_000_000)
		c.photos = append(c.photos, fmt.Sprintf("https://feedback0%d.wbbasket.ru/vol%d/part%d/%d/photos/", 1+r.IntN(5), part/100, part, id))
	}
}

// draw picks n different ones.
func draw(r *rand.Rand, from []string, n int) []string {
	out := make([]string, 0, n)
	for len(out) < n {
		if s := kit.Pick(r, from); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// wireFeedback is an item of GET /api/v1/feedbacks (schema responseFeedback), in the order of the document's example.
type wireFeedback struct {
	ID                              string      `json:"id"`
	Text                            string      `json:"text"`
	Pros                            string      `json:"pros"`
	Cons                            string      `json:"cons"`
	ProductValuation                int         `json:"productValuation"`
	CreatedDate                     string      `json:"createdDate"`
	Answer                          *wireReply  `json:"answer"`
	State                           string      `json:"state"`
	ProductDetails                  wireGoods   `json:"productDetails"`
	Video                           *wireVideo  `json:"video"`
	WasViewed                       bool        `json:"wasViewed"`
	PhotoLinks                      []wirePhoto `json:"photoLinks"`
	UserName                        string      `json:"userName"`
	OrderStatus                     string      `json:"orderStatus"`
	MatchingSize                    string      `json:"matchingSize"`
	IsAbleSupplierFeedbackValuation bool        `json:"isAbleSupplierFeedbackValuation"`
	SupplierFeedbackValuation       int         `json:"supplierFeedbackValuation"`
	IsAbleSupplierProductValuation  bool        `json:"isAbleSupplierProductValuation"`
	SupplierProductValuation        int         `json:"supplierProductValuation"`
	IsAbleReturnProductOrders       bool        `json:"isAbleReturnProductOrders"`
	ReturnProductOrdersDate         *string     `json:"returnProductOrdersDate"`
	Bables                          []string    `json:"bables"`
	LastOrderShkID                  int         `json:"lastOrderShkId"`
	LastOrderCreatedAt              string      `json:"lastOrderCreatedAt"`
	Color                           string      `json:"color"`
	SubjectID                       int         `json:"subjectId"`
	SubjectName                     string      `json:"subjectName"`
	ParentFeedbackID                *string     `json:"parentFeedbackId"`
	ChildFeedbackID                 *string     `json:"childFeedbackId"`
}

// wireReply has no time: when an answer was given is not to be learnt.
type wireReply struct {
	Text     string `json:"text"`
	State    string `json:"state"`
	Editable bool   `json:"editable"`
}

type wireGoods struct {
	ImtID           int     `json:"imtId"`
	NmID            int     `json:"nmId"`
	ProductName     string  `json:"productName"`
	SupplierArticle *string `json:"supplierArticle"`
	SupplierName    *string `json:"supplierName"`
	BrandName       *string `json:"brandName"`
	Size            string  `json:"size"`
	// NewField is what [World.ExtendFeedbacks] adds.
	NewField string `json:"newField,omitempty"`
}

type wireVideo struct {
	PreviewImage string `json:"previewImage"`
	Link         string `json:"link"`
	DurationSec  int    `json:"durationSec"`
}

type wirePhoto struct {
	FullSize string `json:"fullSize"`
	MiniSize string `json:"miniSize"`
}

// newFieldValue is what the new field holds.
const newFieldValue = "новое"

// render gives the item as the lists send it. noise changes the query strings of its links.
func (f *feedbackWorld) render(n *feedback, noise uint64) []byte {
	if n.hand != nil && n.hand.raw != nil {
		return n.hand.raw
	}
	c := n.said()
	sign := fmt.Sprintf("?t=%d&s=%016x", n.created/int64(time.Second)+int64(noise%86_400), c.signature^noise)
	w := wireFeedback{
		ID: n.id, Text: c.text, Pros: c.pros, Cons: c.cons, ProductValuation: int(n.rating),
		CreatedDate: moscowTime(n.created), State: feedbackNew, ProductDetails: n.goods.details(), WasViewed: n.viewed,
		UserName: c.user, OrderStatus: orderStatuses[n.order], MatchingSize: c.fits,
		IsAbleSupplierFeedbackValuation: n.complaint == 0, SupplierFeedbackValuation: int(n.complaint),
		IsAbleSupplierProductValuation: n.problem == 0, SupplierProductValuation: int(n.problem),
		IsAbleReturnProductOrders: n.returnable, Bables: c.bables, LastOrderShkID: c.shk,
		Color: n.goods.color, SubjectID: n.goods.subjectID, SubjectName: n.goods.subject,
		ParentFeedbackID: n.parent.ref(), ChildFeedbackID: n.child.ref(),
	}
	if n.processed() {
		w.State = feedbackProcessed
	}
	if a := n.answer; a != nil {
		w.Answer = &wireReply{Text: a.text, State: a.state, Editable: a.editable}
		if a.text == "" {
			w.Answer.Text = c.reply
		}
	}
	for _, base := range c.photos {
		w.PhotoLinks = append(w.PhotoLinks, wirePhoto{FullSize: base + "fs.webp" + sign, MiniSize: base + "ms.webp" + sign})
	}
	if c.video != "" {
		w.Video = &wireVideo{PreviewImage: c.video + "preview.webp" + sign, Link: c.video + "index.m3u8" + sign, DurationSec: c.seconds}
	}
	if n.returned != 0 {
		at := time.Unix(0, n.returned).UTC().Format(time.RFC3339)
		w.ReturnProductOrdersDate = &at
	}
	if c.bought != 0 {
		w.LastOrderCreatedAt = moscowTime(c.bought)
	}
	if f.extended {
		w.ProductDetails.NewField = newFieldValue
	}
	item := kit.Render(w)
	if n.hand != nil && len(n.hand.edits) > 0 {
		item = edited(item, n.hand.edits)
	}
	return item
}

func moscowTime(ns int64) string { return time.Unix(0, ns).In(moscow).Format(time.RFC3339) }

// ref is a feedback's id, or null.
func (n *feedback) ref() *string {
	if n == nil {
		return nil
	}
	return &n.id
}

func (g *goods) details() wireGoods {
	return wireGoods{
		ImtID: g.imtID, NmID: g.nmID, ProductName: g.name, SupplierArticle: orNull(&g.article), SupplierName: orNull(&g.supplier),
		BrandName: orNull(&g.brand), Size: g.size,
	}
}

func orNull(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}

// edit is one field set by a test: the names on the way to it, and its value.
type edit struct {
	path  []string
	value json.RawMessage
}

// edited applies edits to an item. Its fields are in alphabetical order after that.
func edited(item []byte, edits []edit) []byte {
	root := decoded(item).(map[string]any)
	for _, e := range edits {
		at := root
		for _, name := range e.path[:len(e.path)-1] {
			next, ok := at[name].(map[string]any)
			if !ok {
				next = make(map[string]any)
				at[name] = next
			}
			at = next
		}
		at[e.path[len(e.path)-1]] = decoded(e.value)
	}
	return kit.Render(root)
}

func decoded(raw []byte) any {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // barcodes can be longer than a float is precise
	var v any
	if err := dec.Decode(&v); err != nil {
		panic(fmt.Sprintf("sandbox: decode feedback: %v", err)) // what we have encoded decodes
	}
	return v
}
