package kit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// TypeJSON and TypeHTML are media types.
const (
	TypeJSON = "application/json"
	TypeHTML = "text/html"
)

// Answer is a response before anything is written, so that a fault can still spoil it.
type Answer struct {
	Status      int
	ContentType string // "": no body
	Header      map[string]string
	// Body is in pieces: pages are put together from items rendered long ago, without copying them.
	Body [][]byte
}

// JSON is an answer that says v.
func JSON(status int, contentType string, v any) Answer {
	return Answer{Status: status, ContentType: contentType, Body: [][]byte{Render(v)}}
}

// Send writes an answer that nothing has spoilt.
func Send(w http.ResponseWriter, a Answer) {
	WriteHead(w, a, size(a.Body))
	for _, piece := range a.Body {
		if _, err := w.Write(piece); err != nil {
			return // the client has gone; there is nobody to tell
		}
	}
}

// WriteHead writes all of an answer but its body, which it announces.
func WriteHead(w http.ResponseWriter, a Answer, length int) {
	h := w.Header()
	for k, v := range a.Header {
		h.Set(k, v)
	}
	if a.ContentType != "" { // an answer without a body has none
		h.Set("Content-Type", a.ContentType)
	}
	h.Set("Content-Length", strconv.Itoa(length))
	w.WriteHeader(a.Status)
}

func size(pieces [][]byte) int {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	return n
}

// Render encodes without HTML escapes: texts are full of quotation marks and ampersands, and the real ones are not escaped.
func Render(v any) []byte {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("sandbox: encode %T: %v", v, err)) // our own structs always encode
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}

// List puts rendered items between a head and a tail, with commas.
func List(head []byte, items [][]byte, tail []byte) [][]byte {
	pieces := make([][]byte, 0, 2*len(items)+2)
	pieces = append(pieces, head)
	for i, item := range items {
		if i > 0 {
			pieces = append(pieces, comma)
		}
		pieces = append(pieces, item)
	}
	return append(pieces, tail)
}

var comma = []byte{','}
