package yandexmarket

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"slices"
)

// serveApplication answers GET …/application: the buyer's application for a return, of which unredeemed orders have none.
func serveApplication(c *call) answer {
	n, refusal := c.oneReturn()
	if refusal != nil {
		return *refusal
	}
	if n.kind != typeReturn {
		return fail(http.StatusNotFound, fmt.Sprintf("Application for return '%d' is not found", n.id))
	}
	return answer{Status: http.StatusOK, ContentType: "application/pdf", Body: [][]byte{pdf(fmt.Sprintf("Return %d of order %d", n.id, n.order.id))}}
}

// servePhoto answers GET …/decision/{itemId}/image/{imageHash}: JPEG or PNG, which only the type of the content tells.
func servePhoto(c *call) answer {
	n, refusal := c.oneReturn()
	if refusal != nil {
		return *refusal
	}
	itemID, refusal := c.id("itemId")
	if refusal != nil {
		return *refusal
	}
	hash := c.vars["imageHash"]
	if !slices.ContainsFunc(n.items, func(i returnItem) bool { return i.id == itemID && slices.Contains(i.images, hash) }) {
		return fail(http.StatusNotFound, "Resource not found")
	}
	kind, body := photo(hash)
	return answer{Status: http.StatusOK, ContentType: kind, Body: [][]byte{body}}
}

// pdf is a document of one page with one line of Latin letters.
func pdf(line string) []byte {
	var b bytes.Buffer
	content := fmt.Sprintf("BT /F1 12 Tf 72 720 Td (%s) Tj ET", line)
	objects := []string{
		"<</Type/Catalog/Pages 2 0 R>>",
		"<</Type/Pages/Kids[3 0 R]/Count 1>>",
		"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
		fmt.Sprintf("<</Length %d>>stream\n%s\nendstream", len(content), content),
		"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
	}
	b.WriteString("%PDF-1.4\n")
	var at []int
	for i, o := range objects {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj%s\nendobj\n", i+1, o)
	}
	table := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for _, offset := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&b, "trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, table)
	return b.Bytes()
}

// photo draws the picture of a hash, always the same one.
func photo(hash string) (contentType string, body []byte) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(hash)) // a hash does not fail
	sum := h.Sum64()
	picture := image.NewRGBA(image.Rect(0, 0, 16, 16))
	for i := range 16 * 16 {
		picture.Set(i%16, i/16, color.RGBA{uint8(sum), uint8(sum >> 8), uint8(int(sum>>16) + i), 255})
	}
	var b bytes.Buffer
	if sum%3 == 0 {
		_ = png.Encode(&b, picture) // a buffer takes everything
		return "image/png", b.Bytes()
	}
	_ = jpeg.Encode(&b, picture, nil)
	return "image/jpeg", b.Bytes()
}
